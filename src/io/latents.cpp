#include "io/latents.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "io/file.h"
#include "io/safetensors.h"
#include "io/text.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr const char *settings_key = "linnet.latents", *broken_key = "linnet.broken";

std::string to_json(const LatentSettings& settings) {
  nlohmann::ordered_json json;
  json["autoencoder"] = settings.autoencoder;
  json["pictures"] = settings.pictures;
  json["size"] = settings.size;
  json["flipped"] = settings.flipped;
  json["scaling_factor"] = settings.scaling_factor;
  json["shift_factor"] = settings.shift_factor;
  json["shards"] = settings.shards;
  if (settings.bucketed) json["bucketed"] = true;
  if (!settings.text_encoder.empty()) json["text_encoder"] = settings.text_encoder;
  if (!settings.stored.empty()) json["stored"] = settings.stored;
  if (!settings.products.empty()) json["products"] = settings.products;
  if (!settings.contents.empty()) json["contents"] = settings.contents;
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
    settings.bucketed = json.value("bucketed", false);
    settings.text_encoder = json.value("text_encoder", std::string());
    settings.stored = json.value("stored", std::string());
    settings.products = json.value("products", std::string());
    settings.contents = json.value("contents", std::string());
    check(settings.shards > 0 && settings.shards <= 1'000'000 && std::isfinite(settings.scaling_factor) &&
              std::isfinite(settings.shift_factor),
          "{}: what it says of its latents is impossible", file.source());
    return settings;
  } catch (const nlohmann::json::exception& error) {
    fail("{}: what it says of its latents is not readable ({})", file.source(), printable(error.what()));
  }
}

bool is_float(const Tensor& tensor) { return tensor.dtype() == DType::f16 || tensor.dtype() == DType::f32; }

Tensor tensor_of(const SafetensorsFile& file, const std::string& name, const Shape& shape) {
  check(file.contains(name), "{}: tensor \"{}\" is missing", file.source(), name);
  Tensor tensor = file.tensor(name);
  check(tensor.shape() == shape && is_float(tensor),
        "{}: tensor \"{}\" is {} of shape {}, not f16 or f32 of {}", file.source(), name,
        name_of(tensor.dtype()), to_string(tensor.shape()), to_string(shape));
  return tensor;
}

// "mean" of the first group, "mean.1" of the second.
std::string in_group(const char* name, size_t group) {
  return group == 0 ? std::string(name) : fmt::format("{}.{}", name, group);
}

LatentGroup read_group(const SafetensorsFile& file, size_t group, bool flipped) {
  const std::string mean = in_group("mean", group);
  const Shape shape = file.entry(mean).shape;
  check(shape.rank() == 4, "{}: tensor \"{}\" has shape {}", file.source(), mean, to_string(shape));
  LatentGroup result{tensor_of(file, mean, shape), tensor_of(file, in_group("logvar", group), shape), {}, {}};
  if (flipped) {
    result.flipped_mean = tensor_of(file, in_group("flipped.mean", group), shape);
    result.flipped_logvar = tensor_of(file, in_group("flipped.logvar", group), shape);
  }
  return result;
}

Tensor numbers_of(const SafetensorsFile& file, const char* name) {
  check(file.contains(name), "{}: tensor \"{}\" is missing", file.source(), name);
  const Tensor numbers = file.tensor(name);
  check(numbers.dtype() == DType::i64 && numbers.shape().rank() == 1, "{}: tensor \"{}\" is {} of shape {}",
        file.source(), name, name_of(numbers.dtype()), to_string(numbers.shape()));
  return numbers;
}

void read_texts(const SafetensorsFile& file, LatentShard& shard) {
  const int64_t n = shard.labels.numel();
  shard.offsets = numbers_of(file, "text.offsets");
  check(file.contains("text.states") && file.contains("text.none"),
        "{}: tensors \"text.states\" and \"text.none\" are missing", file.source());
  shard.states = file.tensor("text.states");
  shard.no_text = file.tensor("text.none");
  const std::span<const int64_t> offsets = shard.offsets.values<int64_t>();
  const bool fit = shard.states.shape().rank() == 2 && is_float(shard.states) &&
                   offsets.size() == n + size_t{1} && offsets.front() == 0 &&
                   offsets.back() == shard.states.size(0) &&
                   std::ranges::adjacent_find(offsets, std::greater_equal<>()) == offsets.end();
  check(fit, "{}: its texts' states, of shape {}, do not go with their offsets", file.source(),
        to_string(shard.states.shape()));
  check(shard.no_text.shape().rank() == 2 && is_float(shard.no_text) && shard.no_text.size(0) > 0 &&
            shard.no_text.size(1) == shard.states.size(1),
        "{}: the states of no text have shape {}", file.source(), to_string(shard.no_text.shape()));
}

LatentShard read_shard(const SafetensorsFile& file, const LatentSettings& settings) {
  LatentShard shard;
  shard.labels = numbers_of(file, "labels");
  int64_t rows = 0;
  while (file.contains(in_group("mean", shard.groups.size()))) {
    shard.groups.push_back(read_group(file, shard.groups.size(), settings.flipped));
    rows += shard.groups.back().mean.size(0);
  }
  check(rows == shard.labels.numel(), "{}: there are latents of {} pictures and labels of {}", file.source(),
        rows, shard.labels.numel());
  if (!settings.text_encoder.empty()) read_texts(file, shard);
  return shard;
}

// How many shards there are by the name of one, 12 of "latents-00003-of-00012.safetensors"; 0 if it is none.
int64_t shards_in_name(const fs::path& path) {
  constexpr std::string_view before = "latents-", between = "-of-", after = ".safetensors";
  const std::string name = path.filename().string();
  const size_t of = name.rfind(between);
  if (!name.starts_with(before) || !name.ends_with(after) || of == std::string::npos) return 0;
  const char* const end = name.data() + name.size() - after.size();
  int64_t shards = 0;
  const auto [parsed, problem] = std::from_chars(name.data() + of + between.size(), end, shards);
  return problem == std::errc() && parsed == end ? std::max<int64_t>(shards, 0) : 0;
}

// The same of all that are in a folder.
int64_t shards_in_names(const fs::path& folder) {
  int64_t shards = 0;
  for (const fs::path& entry : entries_of(folder)) {
    const int64_t said = shards_in_name(entry);
    check(said == 0 || shards == 0 || said == shards,
          "{}: here are latents in {} shards and others in {}: keep only those that belong together",
          printable(folder.string()), std::min(said, shards), std::max(said, shards));
    shards = std::max(said, shards);
  }
  return shards;
}

Shape shape_of(const LatentGroup& group) {
  return {group.mean.size(1), group.mean.size(2), group.mean.size(3)};
}

void read_values(const Tensor& tensor, int64_t row, std::span<float> values) {
  const auto n = static_cast<int64_t>(values.size());
  const Tensor one = tensor.rows(row, row + 1).to(DType::f32);
  std::copy_n(one.data<float>(), n, values.data());
}

}  // namespace

bool agree(const LatentSettings& a, const LatentSettings& b) {
  LatentSettings known = a;
  for (std::string LatentSettings::*const setting :
       {&LatentSettings::stored, &LatentSettings::products, &LatentSettings::contents})
    if ((a.*setting).empty() || (b.*setting).empty()) known.*setting = b.*setting;
  return known == b;
}

fs::path shard_path(const fs::path& folder, int64_t shard, int64_t shards) {
  return folder / fmt::format("latents-{:05}-of-{:05}.safetensors", shard, shards);
}

void write_latent_shard(const fs::path& path, const LatentShard& shard, const LatentSettings& settings) {
  NamedTensors tensors{{"labels", shard.labels}};
  for (size_t i = 0; i < shard.groups.size(); ++i) {
    const LatentGroup& group = shard.groups[i];
    tensors.emplace_back(in_group("mean", i), group.mean);
    tensors.emplace_back(in_group("logvar", i), group.logvar);
    if (!settings.flipped) continue;
    tensors.emplace_back(in_group("flipped.mean", i), group.flipped_mean);
    tensors.emplace_back(in_group("flipped.logvar", i), group.flipped_logvar);
  }
  if (shard.states.defined()) {
    tensors.emplace_back("text.states", shard.states);
    tensors.emplace_back("text.offsets", shard.offsets);
    tensors.emplace_back("text.none", shard.no_text);
  }
  std::map<std::string, std::string> metadata{{settings_key, to_json(settings)}};
  if (!shard.class_names.empty()) metadata[classes_key] = nlohmann::json(shard.class_names).dump();
  std::vector<std::string> broken;  // files may have any bytes as their names, JSON may not
  for (const std::string& picture : shard.broken) broken.push_back(valid_utf8(picture));
  if (!broken.empty()) metadata[broken_key] = nlohmann::json(broken).dump();
  write_safetensors(path, tensors, metadata);
}

LatentSummary read_latent_summary(const fs::path& path) {
  const auto file = SafetensorsFile::open(path);
  return {settings_of(file), numbers_of(file, "labels").numel(),
          list_in_metadata(file.metadata(), broken_key, file.source())};
}

bool is_latent_folder(const fs::path& folder) {
  if (!is_folder(folder)) return false;
  return std::ranges::any_of(entries_of(folder),
                             [](const fs::path& entry) { return shards_in_name(entry) > 0; });
}

void check_shards_of(const fs::path& folder, int64_t shards) {
  if (!is_folder(folder)) return;
  const int64_t there = shards_in_names(folder);
  check(there == 0 || there == shards,
        "{}: here are latents in {} shards, and not in {}; choose another folder", printable(folder.string()),
        there, shards);
}

LatentFolder LatentFolder::open(const fs::path& folder) {
  const int64_t shards = shards_in_names(folder);
  check(shards > 0, "{}: there are no latents here (latents-00000-of-....safetensors)",
        printable(folder.string()));
  LatentFolder result;
  for (int64_t i = 0; i < shards; ++i) {
    const fs::path path = shard_path(folder, i, shards);
    check_told(path);
    check(is_there(path), "{}: shard {} of {} is missing; linnet encode goes on where it stopped",
          printable(folder.string()), i, shards);
    const auto file = SafetensorsFile::open(path);
    const LatentSettings settings = settings_of(file);
    check(settings.shards == shards, "{}: it says that it is one of {} shards, and its name says {}",
          file.source(), settings.shards, shards);
    if (i == 0) result.settings_ = settings;
    check(agree(settings, result.settings_), "{}: it was encoded otherwise than {}", file.source(),
          printable(shard_path({}, 0, shards).string()));
    result.take_class_names(file);
    result.add(read_shard(file, result.settings_), file.source());
  }
  check(!result.places_.empty(), "{}: its shards hold no picture", printable(folder.string()));
  return result;
}

// Thousands of shards may each have the names of thousands of classes: those of one are read and kept.
void LatentFolder::take_class_names(const SafetensorsFile& file) {
  const auto found = file.metadata().find(classes_key);
  if (found == file.metadata().end()) return;
  if (class_names_text_.empty()) {
    class_names_text_ = found->second;
    class_names_ = list_in_metadata(file.metadata(), classes_key, file.source());
  }
  check(found->second == class_names_text_, "{}: its classes have other names than those of shards before it",
        file.source());
}

void LatentFolder::add(LatentShard shard, const std::string& source) {
  for (const int64_t label : shard.labels.values<int64_t>()) {
    check(label >= 0, "{}: class {} is below 0", source, label);
    largest_label_ = std::max(largest_label_, label);
  }
  const auto number = static_cast<int32_t>(shards_.size());
  int32_t row = 0;
  for (size_t group = 0; group < shard.groups.size(); ++group)
    for (int64_t i = 0; i < shard.groups[group].mean.size(0); ++i)
      places_.push_back({number, row++, static_cast<int32_t>(group), static_cast<int32_t>(i)});
  if (has_texts()) {
    const int64_t width = shard.no_text.size(1);
    if (shards_.empty()) {
      text_width_ = width;
      text_dtype_ = shard.states.dtype();
    }
    check(width == text_width_, "{}: its texts' states are {} wide, and others {}", source, width, text_width_);
  }
  shards_.push_back(std::move(shard));
}

const LatentGroup& LatentFolder::group_of(int64_t picture) const {
  const Place place = places_[static_cast<size_t>(picture)];
  return shards_[static_cast<size_t>(place.shard)].groups[static_cast<size_t>(place.group)];
}

Shape LatentFolder::shape(int64_t picture) const { return shape_of(group_of(picture)); }

Shape LatentFolder::shape() const {
  const Shape first = shape(0);
  for (const LatentShard& shard : shards_)
    for (const LatentGroup& group : shard.groups)
      if (group.mean.size(0) > 0 && shape_of(group) != first)
        fail("latents of shapes {} and {} are not of one size", to_string(first), to_string(shape_of(group)));
  return first;
}

Tensor LatentFolder::text(int64_t picture) const {
  const Place place = places_[static_cast<size_t>(picture)];
  const LatentShard& shard = shards_[static_cast<size_t>(place.shard)];
  const int64_t* offsets = shard.offsets.data<int64_t>() + place.row;
  return shard.states.rows(offsets[0], offsets[1]).to(text_dtype_);
}

Tensor LatentFolder::no_text() const { return shards_.front().no_text.to(text_dtype_); }

int64_t LatentFolder::label(int64_t picture) const {
  const Place place = places_[static_cast<size_t>(picture)];
  return shards_[static_cast<size_t>(place.shard)].labels.data<int64_t>()[place.row];
}

void LatentFolder::draw(int64_t picture, bool flipped, std::span<const float> noise,
                        std::span<float> latents) const {
  const Place place = places_[static_cast<size_t>(picture)];
  const LatentGroup& group = group_of(picture);
  const auto n = static_cast<size_t>(shape(picture).numel());
  check(noise.size() == n && latents.size() == n, "latents of {} numbers are not drawn into {}", n,
        latents.size());
  std::vector<float> logvar(n);
  read_values(flipped ? group.flipped_mean : group.mean, place.inside, latents);
  read_values(flipped ? group.flipped_logvar : group.logvar, place.inside, logvar);
  const auto scale = static_cast<float>(settings_.scaling_factor),
             shift = static_cast<float>(settings_.shift_factor);
  for (size_t i = 0; i < n; ++i)
    latents[i] = (latents[i] + std::exp(0.5f * logvar[i]) * noise[i] - shift) * scale;
}

}  // namespace linnet
