// A training checkpoint on disk: tensors of the run's state, and as metadata the step, the model's
// configuration, its classes' names, how many pictures there were and the whole configuration that the run had.
// Trainer writes it.
#pragma once

#include "io/safetensors.h"
#include "models/model_config.h"

namespace linnet {

/// Its name in a run's folder.
inline constexpr const char* checkpoint_name = "checkpoint.safetensors";

struct Checkpoint {
  SafetensorsFile file;
  int64_t step = 0;
  ModelConfig model;
  std::string toml;      ///< the run's configuration
  int64_t pictures = 0;  ///< in the data set; 0: not said, as older ones do not
};

/// Throws Error naming the file unless it is a training checkpoint. Reads no tensor.
Checkpoint open_checkpoint(const std::filesystem::path& path);

/// What a checkpoint says beside its tensors.
struct CheckpointNotes {
  int64_t step = 0, pictures = 0;
  std::string toml;
  std::map<std::string, std::string> extra;  ///< what else stands in the metadata, such as the classes' names
};
void write_checkpoint(const std::filesystem::path& path, std::vector<TensorToWrite> state,
                      const ModelConfig& model, const CheckpointNotes& notes);

}  // namespace linnet
