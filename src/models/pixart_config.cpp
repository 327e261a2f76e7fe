// Sizes of the text-to-image transformer, its cost, and how a configuration is written down.
#include <algorithm>

#include "models/config_json.h"
#include "models/pixart.h"

namespace linnet {
namespace {

void require(bool condition, std::string_view sentence) {
  if (!condition) throw UsageError(fmt::format("impossible model: {}", sentence));
}

constexpr ConfigKind kind{"pixart", "no text-to-image transformer", "model"};
constexpr auto fields = [](auto& config, auto& visitor) {
  visitor.value("sample_size", config.sample_size);
  visitor.value("patch_size", config.patch_size);
  visitor.value("in_channels", config.in_channels);
  visitor.value("hidden_size", config.hidden_size);
  visitor.value("depth", config.depth);
  visitor.value("num_heads", config.num_heads);
  visitor.value("num_cross_heads", config.num_cross_heads);
  visitor.value("mlp_ratio", config.mlp_ratio);
  visitor.value("caption_channels", config.caption_channels);
  visitor.value("caption_tokens", config.caption_tokens);
  visitor.value("interpolation", config.interpolation);
  visitor.value("null_caption", config.null_caption);
  visitor.value("micro_conditions", config.micro_conditions);
  visitor.value("learn_sigma", config.learn_sigma);
  visitor.named("mixer", config.mixer, &nn::mixer_from_name);
  visitor.named("prediction", config.prediction, &prediction_from_name, Prediction::epsilon);
  visitor.value("qk_norm", config.qk_norm, false);
  visitor.value("kv_compression", config.kv_compression, {});
};

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
  require(mlp_ratio > 0 && mlp_ratio <= 64 && mlp_size() > 0, "mlp_ratio must be above 0 and at most 64");
  require(caption_channels > 0 && caption_channels <= 65536, "caption_channels must lie in 1..65536");
  require(caption_tokens > 0 && caption_tokens <= 65536, "caption_tokens must lie in 1..65536");
  const auto sensible = [](int64_t side) { return side >= 1 && side <= most_kv_compression; };
  require(kv_compression.empty() || std::ssize(kv_compression) == depth,
          "kv_compression is a list of as many numbers as there are blocks");
  require(std::ranges::all_of(kv_compression, sensible), "the numbers of kv_compression lie in 1..16");
  require(mixer == nn::Mixer::softmax || (!qk_norm && kv_compression.empty()),
          "norms of q and k and the compression of keys and values are softmax attention's");
  require(interpolation >= 0.01 && interpolation <= 100, "interpolation must lie in 0.01..100");
}

double usual_interpolation(int64_t sample_size, int64_t caption_tokens) {
  const bool alpha = caption_tokens <= 120;
  if (sample_size <= 32) return alpha ? 1.0 : 0.5;
  return static_cast<double>(std::max<int64_t>(sample_size / 64, 1));
}

std::optional<PixArtConfig> pixart_preset(std::string_view name) {
  PixArtConfig config;
  if (name == "LiT-T2I-XL/2") {
    config.mixer = nn::Mixer::lit;
    config.num_heads = 2;
  } else if (name != "PixArt-XL/2") {
    return std::nullopt;
  }
  return config;
}

std::string to_json(const PixArtConfig& config) { return config_to_json(config, kind, fields); }
std::string to_full_json(const PixArtConfig& config) {
  return config_to_json(config, kind, fields, Written::all);
}

PixArtConfig pixart_config_from_json(std::string_view text) {
  return config_from_json<PixArtConfig>(text, kind, fields);
}

double gemm_flops(const PixArtConfig& config, int64_t height, int64_t width, int64_t text_tokens) {
  const int64_t rows = height / config.patch_size, columns = width / config.patch_size;
  const auto n = static_cast<double>(rows * columns);
  const auto d = static_cast<double>(config.hidden_size), text = static_cast<double>(text_tokens);
  double mixers = 0;
  for (int64_t i = 0; i < config.depth; ++i) {
    const int64_t side = config.kv_compression_of(i), keys = rows / side * (columns / side);
    mixers += nn::mixer_flops(config.mixer, config.hidden_size, config.num_heads, rows * columns, keys);
  }
  const double cross = 2 * n * d * d + 2 * text * d * d + 2 * n * text * d;
  const double others = cross + 2 * n * d * static_cast<double>(config.mlp_size());
  const double captions = text * d * (static_cast<double>(config.caption_channels) + d);
  return mixers + 2 * (static_cast<double>(config.depth) * others + captions + 6 * d * d);
}

}  // namespace linnet
