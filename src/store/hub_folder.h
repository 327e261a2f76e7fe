// Folders as the Hub lays them out: where weights lie in them, and what lies beside that says what they are.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace linnet {

/// Keys of such metadata: a folder's "config.json", and of the pipeline that the folder is part of its
/// "model_index.json" and its "scheduler/scheduler_config.json".
inline constexpr const char *folder_config_key = "folder.config", *folder_pipeline_key = "folder.pipeline",
                            *folder_scheduler_key = "folder.scheduler";

/// The weights in a folder, or in its "transformer": an index or one file, safetensors rather than PyTorch's;
/// of those that are called by a variant ("model.fp16.safetensors") only if there is no other. Throws Error
/// when there are none, or of several variants.
std::filesystem::path weights_in(const std::filesystem::path& folder);

/// Whether a file's name is one that weights have in such a folder.
bool is_named_as_weights(std::string_view name);

/// What lies beside a file of weights.
std::map<std::string, std::string> read_beside(const std::filesystem::path& weights);

}  // namespace linnet
