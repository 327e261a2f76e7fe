// Sizes of the text-to-image transformer, its cost, and how a configuration is written down.
#include <nlohmann/json.hpp>

#include "models/pixart.h"

namespace linnet {
namespace {

void require(bool condition, std::string_view sentence) {
  if (!condition) throw UsageError(fmt::format("impossible model: {}", sentence));
}

}  // namespace

void PixArtConfig::validate() const {
  require(sample_size > 0 && sample_size <= 8192, "sample_size must lie in 1..8192");
  require(patch_size > 0 && patch_size <= 64 && sample_size % patch_size == 0,
          "patch_size must divide sample_size");
  require(in_channels > 0 && in_channels <= 1024, "in_channels must lie in 1..1024");
  require(hidden_size > 0 && hidden_size <= 16384 && hidden_size % 4 == 0,
          "hidden_size must be a multiple of 4, at most 16384");
  require(!micro_conditions || hidden_size % 3 == 0, "micro-conditions need a hidden_size that 3 divides");
  require(depth > 0 && depth <= 1024, "depth must lie in 1..1024");
  require(num_heads > 0 && hidden_size % num_heads == 0, "num_heads must divide hidden_size");
  require(num_cross_heads > 0 && hidden_size % num_cross_heads == 0, "num_cross_heads must divide hidden_size");
  require(mlp_ratio > 0 && mlp_ratio <= 64 && mlp_size() > 0, "mlp_ratio must lie in 0..64");
  require(caption_channels > 0 && caption_channels <= 65536, "caption_channels must lie in 1..65536");
  require(caption_tokens > 0 && caption_tokens <= 65536, "caption_tokens must lie in 1..65536");
  require(interpolation >= 0.01 && interpolation <= 100, "interpolation must lie in 0.01..100");
}

std::string to_json(const PixArtConfig& config) {
  nlohmann::ordered_json json;
  json["model"] = "pixart";
  json["sample_size"] = config.sample_size;
  json["patch_size"] = config.patch_size;
  json["in_channels"] = config.in_channels;
  json["hidden_size"] = config.hidden_size;
  json["depth"] = config.depth;
  json["num_heads"] = config.num_heads;
  json["num_cross_heads"] = config.num_cross_heads;
  json["mlp_ratio"] = config.mlp_ratio;
  json["caption_channels"] = config.caption_channels;
  json["caption_tokens"] = config.caption_tokens;
  json["interpolation"] = config.interpolation;
  json["null_caption"] = config.null_caption;
  json["micro_conditions"] = config.micro_conditions;
  json["learn_sigma"] = config.learn_sigma;
  json["mixer"] = nn::name_of(config.mixer);
  return json.dump();
}

PixArtConfig pixart_config_from_json(std::string_view text) {
  try {
    const auto json = nlohmann::json::parse(text);
    const auto model = json.at("model").get<std::string>();
    check(model == "pixart", "a model of type \"{}\" is no text-to-image transformer", model);
    PixArtConfig config;
    json.at("sample_size").get_to(config.sample_size);
    json.at("patch_size").get_to(config.patch_size);
    json.at("in_channels").get_to(config.in_channels);
    json.at("hidden_size").get_to(config.hidden_size);
    json.at("depth").get_to(config.depth);
    json.at("num_heads").get_to(config.num_heads);
    json.at("num_cross_heads").get_to(config.num_cross_heads);
    json.at("mlp_ratio").get_to(config.mlp_ratio);
    json.at("caption_channels").get_to(config.caption_channels);
    json.at("caption_tokens").get_to(config.caption_tokens);
    json.at("interpolation").get_to(config.interpolation);
    json.at("null_caption").get_to(config.null_caption);
    json.at("micro_conditions").get_to(config.micro_conditions);
    json.at("learn_sigma").get_to(config.learn_sigma);
    config.mixer = nn::mixer_from_name(json.at("mixer").get<std::string>());
    config.validate();
    return config;
  } catch (const UsageError& error) {  // nobody's usage is wrong: the file is
    fail("{}", error.what());
  } catch (const nlohmann::json::exception& error) {
    fail("the model's configuration is not readable ({})", error.what());
  }
}

double gemm_flops(const PixArtConfig& config, int64_t height, int64_t width, int64_t text_tokens) {
  const auto n = static_cast<double>(height / config.patch_size * (width / config.patch_size));
  const auto d = static_cast<double>(config.hidden_size), text = static_cast<double>(text_tokens);
  const double sums = config.mixer == nn::Mixer::softmax
                          ? 2 * n * n * d
                          : 2 * n * d * d / static_cast<double>(config.num_heads);
  const double cross = 2 * n * d * d + 2 * text * d * d + 2 * n * text * d;
  const double block = 4 * n * d * d + sums + cross + 2 * n * d * static_cast<double>(config.mlp_size());
  const double captions = text * d * (static_cast<double>(config.caption_channels) + d);
  return 2 * (static_cast<double>(config.depth) * block + captions + 6 * d * d);
}

}  // namespace linnet
