#include "train/checkpoint.h"

#include <charconv>

#include "io/text.h"
#include "store/metadata.h"

namespace linnet {
namespace {

int64_t number_in(const std::string& text, const char* what, const std::filesystem::path& path) {
  int64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  check(parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() && number >= 0,
        "{}: the {} \"{}\" is no number", path.string(), what, printable(text));
  return number;
}

}  // namespace

Checkpoint open_checkpoint(const std::filesystem::path& path) {
  Checkpoint result{SafetensorsFile::open(path), 0, {}, "", 0};
  const auto& metadata = result.file.metadata();
  check(metadata.contains(step_key) && metadata.contains(checkpoint_key), "{}: this is no training checkpoint",
        path.string());
  result.step = number_in(metadata.at(step_key), "step", path);
  if (const auto pictures = metadata.find(pictures_key); pictures != metadata.end())
    result.pictures = number_in(pictures->second, "count of pictures", path);
  try {
    result.model = model_config_from_json(metadata.at(checkpoint_key));
  } catch (const Error& error) {
    fail("{}: {}", path.string(), error.what());
  }
  if (const auto config = metadata.find(training_key); config != metadata.end()) result.toml = config->second;
  return result;
}

void write_checkpoint(const std::filesystem::path& path, std::vector<TensorToWrite> state,
                      const ModelConfig& model, const CheckpointNotes& notes) {
  std::map<std::string, std::string> metadata = notes.extra;
  metadata[step_key] = std::to_string(notes.step);
  if (notes.pictures > 0) metadata[pictures_key] = std::to_string(notes.pictures);
  metadata[training_key] = notes.toml;
  metadata[checkpoint_key] = to_json(model);
  write_safetensors(path, std::move(state), metadata);
}

}  // namespace linnet
