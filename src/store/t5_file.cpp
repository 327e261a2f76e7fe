#include "store/t5_file.h"

#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/text.h"
#include "store/metadata.h"
#include "store/parameters.h"
#include "store/renaming.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view telltale = "encoder.block.0.layer.0.SelfAttention.q.weight";
constexpr const char* distances = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
constexpr const char *tokens = "shared.weight", *tokens_too = "encoder.embed_tokens.weight";

const Shape& matrix(const Weights& weights, const std::string& name) {
  const Shape& shape = weights.shape(name);
  check(shape.rank() == 2 && shape.numel() > 0, "{}: tensor '{}' of shape {} is not what T5 has there",
        weights.source(), printable(name), to_string(shape));
  return shape;
}

// What only the config says.
void read_folder_config(const std::string& text, T5Config& config) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  check(json.is_object(), "config.json is no JSON object");
  try {
    const auto read = [&](const char* key, auto& value) {
      if (json.contains(key) && !json[key].is_null()) json[key].get_to(value);
    };
    std::string activation = "gated-gelu";
    read("relative_attention_max_distance", config.max_distance);
    read("layer_norm_epsilon", config.norm_epsilon);
    read("feed_forward_proj", activation);
    check(activation == "gated-gelu", "its feed-forward layers are \"{}\": only \"gated-gelu\" is known here",
          printable(activation));
  } catch (const nlohmann::json::exception& error) {
    fail("config.json is not readable ({})", error.what());
  }
}

}  // namespace

bool holds_t5(const Weights& file) { return file.prefix_before(telltale).has_value(); }

Weights find_t5_weights(const Weights& given, Choice choice) {
  const Weights file = given.metadata().contains(checkpoint_key) ? part_of_checkpoint(given, choice) : given;
  const auto prefix = file.prefix_before(telltale);
  check(prefix.has_value(), "{}: this is no T5 text encoder: it has no tensor '{}'", file.source(), telltale);
  const Weights part = part_of(file, *prefix);
  Weights result = part.empty_like();
  for (Weights::Item item : part.items()) {
    if (item.name == tokens_too && part.contains(tokens)) continue;
    if (item.name == tokens_too) item.name = tokens;
    if (item.name == tokens || item.name.starts_with("encoder.")) result.add(std::move(item));
  }
  return result;
}

T5Config read_t5_config(const Weights& weights) {
  T5Config config;
  const Shape table = matrix(weights, tokens), buckets = matrix(weights, distances);
  const std::string block = "encoder.block.0.layer.";
  check(weights.contains(block + "1.DenseReluDense.wi_0.weight"),
        "{}: this T5 has no gated feed-forward layers, as version 1.1 and later have", weights.source());
  config.vocabulary = table[0];
  config.width = table[1];
  config.hidden = matrix(weights, block + "1.DenseReluDense.wi_0.weight")[0];
  config.distance_buckets = buckets[0];
  config.heads = buckets[1];
  config.head_size = matrix(weights, block + "0.SelfAttention.q.weight")[0] / config.heads;
  config.depth = count_blocks(weights, "encoder.block.{}.layer.0.SelfAttention.q.weight");
  weights.naming_source([&] {
    if (const auto stated = weights.metadata().find(folder_config_key); stated != weights.metadata().end())
      read_folder_config(stated->second, config);
    config.validate();
  });
  return config;
}

std::string to_json(const T5Config& config) {
  nlohmann::ordered_json json;
  json["architectures"] = {"T5EncoderModel"};
  json["model_type"] = "t5";
  json["d_model"] = config.width;
  json["d_ff"] = config.hidden;
  json["d_kv"] = config.head_size;
  json["num_heads"] = config.heads;
  json["num_layers"] = config.depth;
  json["vocab_size"] = config.vocabulary;
  json["relative_attention_num_buckets"] = config.distance_buckets;
  json["relative_attention_max_distance"] = config.max_distance;
  json["layer_norm_epsilon"] = config.norm_epsilon;
  json["feed_forward_proj"] = "gated-gelu";
  return json.dump(2) + "\n";
}

std::string quick_fingerprint(T5Encoder& encoder) {
  const std::string weights = quick_fingerprint(nn::all_parameters(encoder));
  return fmt::format("{:016x}", nn::hash_name(weights + to_json(encoder.config())));
}

void save_t5(const fs::path& folder, T5Encoder& encoder, DType dtype) {
  write_safetensors(folder / "model.safetensors", values_of(nn::learned_parameters(encoder), dtype),
                    {{"format", "pt"}});
  write_text_file(folder / "config.json", to_json(encoder.config()));
}

std::unique_ptr<T5Encoder> load_t5(const fs::path& given, Choice choice) {
  const fs::path inside = given / "text_encoder";
  return load_t5(Weights::open(is_folder(inside) ? inside : given), choice);
}

std::unique_ptr<T5Encoder> load_t5(const Weights& file, Choice choice) {
  const Weights weights = find_t5_weights(file, choice);
  auto model = std::make_unique<T5Encoder>(read_t5_config(weights));
  read_parameters(nn::all_parameters(*model), weights);
  nn::freeze(*model);
  return model;
}

}  // namespace linnet
