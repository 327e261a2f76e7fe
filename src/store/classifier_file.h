// Classifiers on disk: safetensors files whose metadata "linnet.classifier" holds the configuration as JSON,
// and "linnet.classes" the classes' names.
#pragma once

#include <filesystem>
#include <map>
#include <memory>

#include "models/classifier.h"

namespace linnet {

struct LoadedClassifier {
  std::unique_ptr<Classifier> model;  ///< f32, frozen
  std::vector<std::string> class_names;
  std::string fingerprint;  ///< says which weights they are
  Device device = {};       ///< where it works
};
/// Throws Error naming file and tensor when the file is no classifier, or one that does not fit its
/// configuration.
LoadedClassifier load_classifier(const std::filesystem::path& path, const Device& device = {});

/// Writes atomically; weights in bf16. `extra` joins the metadata.
void save_classifier(const std::filesystem::path& path, Classifier& model,
                     const std::vector<std::string>& class_names,
                     const std::map<std::string, std::string>& extra = {});

}  // namespace linnet
