// Models on disk: a safetensors file whose metadata "linnet.config" holds the configuration as JSON.
#pragma once

#include <filesystem>
#include <map>
#include <memory>

#include "models/dit.h"

namespace linnet {

/// A model with its weights mapped from the file. Throws Error naming file and tensor when one is missing, left
/// over, or of another shape.
struct LoadedModel {
  std::unique_ptr<DiT> model;
  std::map<std::string, std::string> metadata;
};
LoadedModel load_model(const std::filesystem::path& path);

/// The configuration alone.
DiTConfig read_model_config(const std::filesystem::path& path);

/// Writes atomically; learned weights in dtype (f32, bf16 or f16), positions left out if with_positions is false.
/// `extra` joins the metadata.
void save_model(const std::filesystem::path& path, DiT& model, DType dtype,
                const std::map<std::string, std::string>& extra = {}, bool with_positions = true);

}  // namespace linnet
