#include "store/hub_folder.h"

#include <algorithm>
#include <array>
#include <optional>
#include <regex>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/printable.h"
#include "io/file.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

// By preference, in the folder itself or in "transformer".
constexpr std::array usual_names = {"model.safetensors.index.json",
                                    "model.safetensors",
                                    "diffusion_pytorch_model.safetensors.index.json",
                                    "diffusion_pytorch_model.safetensors",
                                    "diffusion_pytorch_model.bin.index.json",
                                    "diffusion_pytorch_model.bin",
                                    "pytorch_model.bin.index.json",
                                    "pytorch_model.bin"};

struct Variant {
  std::string name, file;
  int rank = 0;  // by preference, as above
};

// "model.fp16.safetensors", "model.safetensors.index.fp16.json"
std::optional<Variant> as_variant(const std::string& file) {
  static const std::regex pattern(
      R"((?:model|diffusion_pytorch_model|pytorch_model)\.(?:(\w+)\.(safetensors|bin)|(safetensors|bin)\.index\.(\w+)\.json))");
  std::smatch match;
  if (!std::regex_match(file, match, pattern)) return std::nullopt;
  const bool indexed = match[4].matched, torch = (indexed ? match[3] : match[2]) == "bin";
  return Variant{match[indexed ? 4 : 1].str(), file, (torch ? 2 : 0) + (indexed ? 0 : 1)};
}

// Empty if there is none.
fs::path variant_in(const fs::path& folder) {
  std::vector<Variant> found;
  for (const fs::path& entry : is_folder(folder) ? entries_of(folder) : std::vector<fs::directory_entry>())
    if (const auto variant = as_variant(entry.filename().string())) found.push_back(*variant);
  if (found.empty()) return {};
  std::ranges::sort(found, {}, [](const Variant& v) { return std::pair(v.rank, v.file); });
  for (const Variant& other : found)
    check(other.name == found[0].name, "{}: it holds several variants of the weights; name one: {} or {}",
          printable(folder.string()), printable(found[0].file), printable(other.file));
  return folder / found[0].file;
}

}  // namespace

fs::path weights_in(const fs::path& folder) {
  const std::array places = {folder, folder / "transformer"};
  for (const fs::path& place : places) {
    std::error_code problem;
    const bool told = fs::status_known(fs::status(place / ".", problem));
    check(told, "cannot read {}: {}", printable(place.string()), problem.message());
    for (const char* name : usual_names)
      if (is_there(place / name)) return place / name;
    if (const fs::path variant = variant_in(place); !variant.empty()) return variant;
  }
  fail("{}: this folder holds no weights that Linnet knows (such as diffusion_pytorch_model.safetensors)",
       printable(folder.string()));
}

bool is_named_as_weights(std::string_view name) {
  for (const char* begin : {"model.", "model-", "diffusion_pytorch_model", "pytorch_model"})
    if (name.starts_with(begin)) return true;
  return false;
}

std::map<std::string, std::string> read_beside(const fs::path& weights) {
  constexpr size_t limit = 1 << 20;
  std::error_code ignored;  // without a current folder the path itself must do
  const fs::path absolute = fs::absolute(weights, ignored).lexically_normal();
  const fs::path own = (absolute.empty() ? weights : absolute).parent_path();
  std::map<std::string, std::string> metadata;
  const auto read = [&](const char* key, const fs::path& file) {
    if (is_there(file)) metadata.emplace(key, read_text_file(file, limit));
  };
  read(folder_config_key, own / "config.json");
  if (!is_there(own.parent_path() / "model_index.json")) return metadata;
  read(folder_pipeline_key, own.parent_path() / "model_index.json");
  read(folder_scheduler_key, own.parent_path() / "scheduler" / "scheduler_config.json");
  return metadata;
}

}  // namespace linnet
