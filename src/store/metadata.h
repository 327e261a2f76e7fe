// What Linnet's own files say beside tensors: keys of their metadata, and the classes' names.
#pragma once

#include <string>
#include <vector>

#include "store/weights.h"

namespace linnet {

/// A model's configuration, and that of a training checkpoint.
inline constexpr const char *config_key = "linnet.config", *checkpoint_key = "linnet.checkpoint";
/// Of what training made, how many steps it had done; of a checkpoint, the run's whole configuration as TOML.
inline constexpr const char *step_key = "linnet.step", *training_key = "linnet.train";
/// How many pictures a run's data set had, or statistics are of.
inline constexpr const char* pictures_key = "linnet.pictures";

/// The names in the metadata "linnet.classes"; empty if there are none. Throws Error unless there are as many
/// as the model has classes.
std::vector<std::string> read_class_names(const Weights& weights, int64_t num_classes);

}  // namespace linnet
