#include "store/model_file.h"

#include <set>

#include "io/safetensors.h"

namespace linnet {
namespace {

constexpr const char* config_key = "linnet.config";

DiTConfig config_of(const std::filesystem::path& path, const std::map<std::string, std::string>& metadata) {
  const auto found = metadata.find(config_key);
  check(found != metadata.end(), "{}: no model configuration in this file (metadata \"{}\")", path.string(),
        config_key);
  try {
    return dit_config_from_json(found->second);
  } catch (const Error& error) {
    fail("{}: {}", path.string(), error.what());
  }
}

}  // namespace

LoadedModel load_model(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::open(path);
  LoadedModel result;
  result.metadata = file.metadata();
  result.model = std::make_unique<DiT>(config_of(path, result.metadata));
  std::set<std::string> left_over;
  for (const std::string& name : file.names()) left_over.insert(name);
  result.model->visit("", [&](const std::string& name, nn::Parameter& parameter) {
    left_over.erase(name);
    if (!parameter.learned()) return;
    check(file.contains(name), "{}: tensor \"{}\" is missing", path.string(), name);
    try {
      nn::assign(name, parameter, file.tensor(name));
    } catch (const Error& error) {
      fail("{}: {}", path.string(), error.what());
    }
  });
  check(left_over.empty(), "{}: tensor \"{}\" has no place in this model", path.string(),
        left_over.empty() ? "" : *left_over.begin());
  return result;
}

DiTConfig read_model_config(const std::filesystem::path& path) {
  return config_of(path, SafetensorsFile::open(path).metadata());
}

void save_model(const std::filesystem::path& path, DiT& model, DType dtype,
                const std::map<std::string, std::string>& extra, bool with_positions) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  model.visit("", [&](const std::string& name, nn::Parameter& parameter) {
    if (!parameter.learned() && !with_positions) return;
    check(parameter.value.defined(), "tensor \"{}\" has no value to save", name);
    tensors.emplace_back(name, parameter.value.to(dtype));
  });
  std::map<std::string, std::string> metadata = extra;
  metadata[config_key] = to_json(model.config());
  write_safetensors(path, tensors, metadata);
}

}  // namespace linnet
