// Sizes of the DiT family, their names, their cost, and how a configuration is written down.
#include "models/config_json.h"
#include "models/dit.h"

namespace linnet {
namespace {

void require(bool condition, std::string_view sentence) {
  if (!condition) throw UsageError(fmt::format("impossible model: {}", sentence));
}

struct Size {
  std::string_view name;
  int64_t width, depth, dit_heads, lit_heads;
};

constexpr Size sizes[] = {
    {"S", 384, 12, 6, 2}, {"B", 768, 12, 12, 3}, {"L", 1024, 24, 16, 4}, {"XL", 1152, 28, 16, 4}};

constexpr ConfigKind kind{"dit", "not known here", "model"};
constexpr auto fields = [](auto& config, auto& visitor) {
  visitor.value("input_size", config.input_size);
  visitor.value("patch_size", config.patch_size);
  visitor.value("in_channels", config.in_channels);
  visitor.value("hidden_size", config.hidden_size);
  visitor.value("depth", config.depth);
  visitor.value("num_heads", config.num_heads);
  visitor.value("mlp_ratio", config.mlp_ratio);
  visitor.value("num_classes", config.num_classes);
  visitor.value("class_dropout", config.class_dropout);
  visitor.value("learn_sigma", config.learn_sigma);
  visitor.named("mixer", config.mixer, &nn::mixer_from_name);
  visitor.named("prediction", config.prediction, &prediction_from_name, Prediction::epsilon);
};

}  // namespace

void DiTConfig::validate() const {
  require(input_size > 0 && input_size <= 8192, "input_size must lie in 1..8192");
  require(patch_size > 0 && input_size % patch_size == 0, "patch_size must divide input_size");
  require(in_channels > 0 && in_channels <= 1024, "in_channels must lie in 1..1024");
  require(hidden_size > 0 && hidden_size <= 16384 && hidden_size % 4 == 0,
          "hidden_size must be a multiple of 4, at most 16384");
  // Positions take 2 GiB at most, and no count of operations overflows; more is no model but a damaged file.
  require(tokens() <= (int64_t{1} << 20) && tokens() <= (int64_t{1} << 29) / hidden_size,
          "that many tokens of that width are beyond any sensible size");
  require(depth > 0 && depth <= 1024, "depth must lie in 1..1024");
  require(num_heads > 0 && hidden_size % num_heads == 0, "num_heads must divide hidden_size");
  require(mlp_ratio > 0 && mlp_ratio <= 64 && mlp_size() > 0, "mlp_ratio must be above 0 and at most 64");
  require(num_classes > 0 && num_classes <= (1 << 24), "num_classes must lie in 1..16777216");
  require(class_dropout >= 0 && class_dropout < 1,
          fmt::format("class_dropout must be at least 0 and below 1, not {}", class_dropout));
}

DiTConfig dit_preset(std::string_view name) {
  std::vector<std::string> known;
  for (const bool lit : {false, true})
    for (const Size& size : sizes)
      for (const int64_t patch : {2, 4, 8}) {
        known.push_back(fmt::format("{}-{}/{}", lit ? "LiT" : "DiT", size.name, patch));
        if (known.back() != name) continue;
        DiTConfig config;
        config.hidden_size = size.width;
        config.depth = size.depth;
        config.num_heads = lit ? size.lit_heads : size.dit_heads;
        config.patch_size = patch;
        config.mixer = lit ? nn::Mixer::lit : nn::Mixer::softmax;
        return config;
      }
  throw UsageError(fmt::format("there is no model \"{}\"; known: {}", name, fmt::join(known, ", ")));
}

std::string size_name(const DiTConfig& config) {
  const int64_t patch = config.patch_size;
  for (const Size& size : sizes)
    if (size.width == config.hidden_size && size.depth == config.depth &&
        (patch == 2 || patch == 4 || patch == 8))
      return fmt::format("{}/{}", size.name, patch);
  return {};
}

int64_t usual_heads(nn::Mixer mixer, int64_t width) {
  const bool softmax = mixer == nn::Mixer::softmax;
  for (const Size& size : sizes)
    if (size.width == width) return softmax ? size.dit_heads : size.lit_heads;
  return softmax ? std::max<int64_t>(1, width / 64) : 2;
}

std::string to_json(const DiTConfig& config) { return config_to_json(config, kind, fields); }
std::string to_full_json(const DiTConfig& config) { return config_to_json(config, kind, fields, Written::all); }

DiTConfig dit_config_from_json(std::string_view text) {
  return config_from_json<DiTConfig>(text, kind, fields);
}

int64_t count_macs(const DiTConfig& config) {
  const int64_t n = config.tokens(), d = config.hidden_size;
  const int64_t patch_values = config.patch_size * config.patch_size;
  const int64_t block =
      nn::mixer_macs(config.mixer, d, config.num_heads, n) + 2 * n * d * config.mlp_size() + 6 * d * d;
  const int64_t ends = n * d * patch_values * (config.in_channels + config.out_channels());
  return config.depth * block + ends + 256 * d + 3 * d * d;
}

double gemm_flops(const DiTConfig& config) {
  const auto n = static_cast<double>(config.tokens()), d = static_cast<double>(config.hidden_size);
  const double mixer = nn::mixer_flops(config.mixer, config.hidden_size, config.num_heads, config.tokens());
  const double block = mixer + 4 * n * d * static_cast<double>(config.mlp_size()) + 12 * d * d;
  return static_cast<double>(config.depth) * block;
}

}  // namespace linnet
