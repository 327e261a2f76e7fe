#include "train/checkpoint.h"

#include <charconv>

#include "io/text.h"
#include "store/model_file.h"

namespace linnet {
namespace {

constexpr const char* step_key = "linnet.step";
constexpr const char* toml_key = "linnet.train";

}  // namespace

Checkpoint open_checkpoint(const std::filesystem::path& path) {
  Checkpoint result{SafetensorsFile::open(path), 0, {}, ""};
  const auto& metadata = result.file.metadata();
  check(metadata.contains(step_key) && metadata.contains(checkpoint_key), "{}: this is no training checkpoint",
        path.string());
  const std::string& step = metadata.at(step_key);
  const auto parsed = std::from_chars(step.data(), step.data() + step.size(), result.step);
  check(parsed.ec == std::errc() && parsed.ptr == step.data() + step.size() && result.step >= 0,
        "{}: the step \"{}\" is no number", path.string(), printable(step));
  try {
    result.model = model_config_from_json(metadata.at(checkpoint_key));
  } catch (const Error& error) {
    fail("{}: {}", path.string(), error.what());
  }
  if (const auto config = metadata.find(toml_key); config != metadata.end()) result.toml = config->second;
  return result;
}

void write_checkpoint(const std::filesystem::path& path,
                      const std::vector<std::pair<std::string, Tensor>>& state, int64_t step,
                      const ModelConfig& model, const std::string& toml,
                      const std::map<std::string, std::string>& extra) {
  std::map<std::string, std::string> metadata = extra;
  metadata[step_key] = std::to_string(step);
  metadata[toml_key] = toml;
  metadata[checkpoint_key] = to_json(model);
  write_safetensors(path, state, metadata);
}

}  // namespace linnet
