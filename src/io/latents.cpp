#include "io/latents.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

#include "io/safetensors.h"
#include "io/text.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr const char *settings_key = "linnet.latents", *classes_key = "linnet.classes",
                     *broken_key = "linnet.broken";

std::string to_json(const LatentSettings& settings) {
  nlohmann::ordered_json json;
  json["autoencoder"] = settings.autoencoder;
  json["pictures"] = settings.pictures;
  json["size"] = settings.size;
  json["flipped"] = settings.flipped;
  json["scaling_factor"] = settings.scaling_factor;
  json["shift_factor"] = settings.shift_factor;
  json["shards"] = settings.shards;
  return json.dump();
}

LatentSettings settings_of(const SafetensorsFile& file) {
  const auto found = file.metadata().find(settings_key);
  check(found != file.metadata().end(), "{}: these are no latents of pictures (the metadata lack \"{}\")",
        file.source(), settings_key);
  try {
    const auto json = nlohmann::json::parse(found->second);
    LatentSettings settings;
    json.at("autoencoder").get_to(settings.autoencoder);
    json.at("pictures").get_to(settings.pictures);
    json.at("size").get_to(settings.size);
    json.at("flipped").get_to(settings.flipped);
    json.at("scaling_factor").get_to(settings.scaling_factor);
    json.at("shift_factor").get_to(settings.shift_factor);
    json.at("shards").get_to(settings.shards);
    check(settings.shards > 0 && settings.shards <= 1'000'000 && std::isfinite(settings.scaling_factor) &&
              std::isfinite(settings.shift_factor),
          "{}: what it says of its latents is impossible", file.source());
    return settings;
  } catch (const nlohmann::json::exception& error) {
    fail("{}: what it says of its latents is not readable ({})", file.source(), printable(error.what()));
  }
}

std::vector<std::string> list_of(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) return {};
  const auto json = nlohmann::json::parse(found->second, nullptr, false);
  std::vector<std::string> result;
  check(json.is_array(), "{}: its metadata \"{}\" are no list", file.source(), key);
  for (const auto& entry : json) {
    check(entry.is_string(), "{}: its metadata \"{}\" are no list of texts", file.source(), key);
    result.push_back(entry.get<std::string>());
  }
  return result;
}

Tensor tensor_of(const SafetensorsFile& file, const char* name, const Shape& shape) {
  check(file.contains(name), "{}: tensor \"{}\" is missing", file.source(), name);
  Tensor tensor = file.tensor(name);
  check(tensor.shape() == shape && (tensor.dtype() == DType::f16 || tensor.dtype() == DType::f32),
        "{}: tensor \"{}\" is {} of shape {}, not f16 or f32 of {}", file.source(), name,
        name_of(tensor.dtype()), to_string(tensor.shape()), to_string(shape));
  return tensor;
}

LatentShard read_shard(const SafetensorsFile& file, const LatentSettings& settings) {
  LatentShard shard;
  check(file.contains("labels") && file.contains("mean"), "{}: tensors \"labels\" and \"mean\" are missing",
        file.source());
  shard.labels = file.tensor("labels");
  check(shard.labels.dtype() == DType::i64 && shard.labels.shape().rank() == 1,
        "{}: tensor \"labels\" is {} of shape {}", file.source(), name_of(shard.labels.dtype()),
        to_string(shard.labels.shape()));
  const Shape shape = file.tensor("mean").shape();
  check(shape.rank() == 4 && shape[0] == shard.labels.numel(),
        "{}: tensor \"mean\" of shape {} has not one row for "
        "each of {} labels",
        file.source(), to_string(shape), shard.labels.numel());
  shard.mean = tensor_of(file, "mean", shape);
  shard.logvar = tensor_of(file, "logvar", shape);
  if (settings.flipped) {
    shard.flipped_mean = tensor_of(file, "flipped.mean", shape);
    shard.flipped_logvar = tensor_of(file, "flipped.logvar", shape);
  }
  shard.class_names = list_of(file, classes_key);
  return shard;
}

// "latents-00003-of-00012.safetensors"
bool is_shard(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with("latents-") && name.ends_with(".safetensors") &&
         name.find("-of-") != std::string::npos;
}

void read_values(const Tensor& tensor, int64_t row, std::span<float> values) {
  const auto n = static_cast<int64_t>(values.size());
  const Tensor one = tensor.rows(row, row + 1).to(DType::f32);
  std::copy_n(one.data<float>(), n, values.data());
}

}  // namespace

fs::path shard_path(const fs::path& folder, int64_t shard, int64_t shards) {
  return folder / fmt::format("latents-{:05}-of-{:05}.safetensors", shard, shards);
}

void write_latent_shard(const fs::path& path, const LatentShard& shard, const LatentSettings& settings) {
  NamedTensors tensors{{"mean", shard.mean}, {"logvar", shard.logvar}, {"labels", shard.labels}};
  if (settings.flipped) {
    tensors.emplace_back("flipped.mean", shard.flipped_mean);
    tensors.emplace_back("flipped.logvar", shard.flipped_logvar);
  }
  std::map<std::string, std::string> metadata{{settings_key, to_json(settings)}};
  if (!shard.class_names.empty()) metadata[classes_key] = nlohmann::json(shard.class_names).dump();
  if (!shard.broken.empty()) metadata[broken_key] = nlohmann::json(shard.broken).dump();
  write_safetensors(path, tensors, metadata);
}

LatentSettings read_latent_settings(const fs::path& path) { return settings_of(SafetensorsFile::open(path)); }

std::vector<std::string> read_broken_pictures(const fs::path& path) {
  return list_of(SafetensorsFile::open(path), broken_key);
}

bool is_latent_folder(const fs::path& folder) {
  if (!fs::is_directory(folder)) return false;
  return std::any_of(fs::directory_iterator(folder), fs::directory_iterator(),
                     [](const fs::directory_entry& entry) { return is_shard(entry.path()); });
}

LatentFolder LatentFolder::open(const fs::path& folder) {
  fs::path any;
  for (const auto& entry : fs::directory_iterator(folder))
    if (is_shard(entry.path()) && (any.empty() || entry.path() < any)) any = entry.path();
  check(!any.empty(), "{}: there are no latents here (latents-00000-of-....safetensors)",
        printable(folder.string()));
  LatentFolder result;
  result.settings_ = read_latent_settings(any);
  const int64_t shards = result.settings_.shards;
  for (int64_t i = 0; i < shards; ++i) {
    const fs::path path = shard_path(folder, i, shards);
    check(fs::exists(path), "{}: shard {} of {} is missing; linnet encode goes on where it stopped",
          printable(folder.string()), i, shards);
    const auto file = SafetensorsFile::open(path);
    check(settings_of(file) == result.settings_, "{}: it was encoded otherwise than {}", file.source(),
          printable(any.filename().string()));
    LatentShard shard = read_shard(file, result.settings_);
    const int64_t n = shard.labels.numel();
    if (n > 0) {
      const Shape shape{shard.mean.size(1), shard.mean.size(2), shard.mean.size(3)};
      if (result.places_.empty()) result.shape_ = shape;
      check(shape == result.shape_, "{}: latents of shape {} do not go with {}", file.source(),
            to_string(shape), to_string(result.shape_));
    }
    if (result.class_names_.empty()) result.class_names_ = shard.class_names;
    for (int64_t row = 0; row < n; ++row) {
      const int64_t label = shard.labels.data<int64_t>()[row];
      check(label >= 0, "{}: class {} is below 0", file.source(), label);
      result.largest_label_ = std::max(result.largest_label_, label);
      result.places_.push_back({static_cast<int32_t>(i), static_cast<int32_t>(row)});
    }
    result.shards_.push_back(std::move(shard));
  }
  check(!result.places_.empty(), "{}: its shards hold no picture", printable(folder.string()));
  return result;
}

int64_t LatentFolder::label(int64_t picture) const {
  const Place place = places_[static_cast<size_t>(picture)];
  return shards_[static_cast<size_t>(place.shard)].labels.data<int64_t>()[place.row];
}

void LatentFolder::draw(int64_t picture, bool flipped, std::span<const float> noise,
                        std::span<float> latents) const {
  const Place place = places_[static_cast<size_t>(picture)];
  const LatentShard& shard = shards_[static_cast<size_t>(place.shard)];
  const auto n = static_cast<size_t>(shape_.numel());
  check(noise.size() == n && latents.size() == n, "latents of {} numbers are not drawn into {}", n,
        latents.size());
  std::vector<float> logvar(n);
  read_values(flipped ? shard.flipped_mean : shard.mean, place.row, latents);
  read_values(flipped ? shard.flipped_logvar : shard.logvar, place.row, logvar);
  const auto scale = static_cast<float>(settings_.scaling_factor),
             shift = static_cast<float>(settings_.shift_factor);
  for (size_t i = 0; i < n; ++i)
    latents[i] = (latents[i] + std::exp(0.5f * logvar[i]) * noise[i] - shift) * scale;
}

}  // namespace linnet
