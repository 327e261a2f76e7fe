// Inception's weights on disk: pt_inception-2015-12-05-6726825d.pth, which pytorch-fid made of TensorFlow's, or
// a file of any kind with its names.
#pragma once

#include <filesystem>
#include <memory>

#include "models/inception.h"

namespace linnet {

struct LoadedInception {
  std::unique_ptr<Inception> model;
  std::string fingerprint;  ///< says which weights they are
  Device device = {};       ///< where it works
};
/// Throws Error naming file and tensor when one is missing or of another shape.
LoadedInception load_inception(const std::filesystem::path& path, const Device& device = {});

}  // namespace linnet
