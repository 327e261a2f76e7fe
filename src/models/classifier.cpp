#include "models/classifier.h"

#include "models/config_json.h"
#include "ops/arrange.h"
#include "ops/layer_norm_modulate.h"

namespace linnet {
namespace {

constexpr int64_t mlp_ratio = 4;

void require(bool condition, std::string_view sentence) {
  if (!condition) throw UsageError(fmt::format("impossible classifier: {}", sentence));
}

// Layer norm without modulation.
Tensor normalised(const Tensor& x) {
  const Tensor none = Tensor::zeros({x.size(0), x.size(2)}, DType::f32, x.device());
  return ops::layer_norm_modulate(x, none, none, 1e-6f, DType::f32);
}

constexpr ConfigKind kind{"classifier", "no classifier", "classifier"};
constexpr auto fields = [](auto& config, auto& visitor) {
  visitor.value("input_size", config.input_size);
  visitor.value("patch_size", config.patch_size);
  visitor.value("in_channels", config.in_channels);
  visitor.value("hidden_size", config.hidden_size);
  visitor.value("depth", config.depth);
  visitor.value("num_heads", config.num_heads);
  visitor.value("num_classes", config.num_classes);
};

}  // namespace

void ClassifierConfig::validate() const {
  require(input_size > 0 && input_size <= 1024, "input_size must lie in 1..1024");
  require(patch_size > 0 && input_size % patch_size == 0, "patch_size must divide input_size");
  require(in_channels > 0 && in_channels <= 16, "in_channels must lie in 1..16");
  require(hidden_size > 0 && hidden_size <= 4096 && hidden_size % 4 == 0,
          "hidden_size must be a multiple of 4, at most 4096");
  require(depth > 0 && depth <= 64, "depth must lie in 1..64");
  require(num_heads > 0 && hidden_size % num_heads == 0, "num_heads must divide hidden_size");
  require(num_classes > 0 && num_classes <= (1 << 20), "num_classes must lie in 1..1048576");
}

std::string to_json(const ClassifierConfig& config) { return config_to_json(config, kind, fields); }

ClassifierConfig classifier_config_from_json(std::string_view text) {
  return config_from_json<ClassifierConfig>(text, kind, fields);
}

Classifier::Classifier(const ClassifierConfig& config) : config_(config) {
  config_.validate();
  const int64_t width = config_.hidden_size;
  patches_ = nn::PatchEmbed(config_.in_channels, config_.patch_size, width);
  positions_ = nn::sincos_positions(config_.grid(), config_.grid(), width);
  for (int64_t i = 0; i < config_.depth; ++i)
    blocks_.push_back(
        {nn::make_mixer(nn::Mixer::lit, width, config_.num_heads, config_.grid() * config_.grid()),
         nn::Linear(width, mlp_ratio * width), nn::Linear(mlp_ratio * width, width)});
  head_ = nn::Linear(width, config_.num_classes);
}

Tensor Classifier::features(const Tensor& x) const {
  const int64_t size = config_.input_size, grid = config_.grid();
  check(x.shape().rank() == 4 && x.size(1) == config_.in_channels && x.size(2) == size && x.size(3) == size,
        "the classifier takes pictures of shape (n, {}, {}, {}), not {}", config_.in_channels, size, size,
        to_string(x.shape()));
  Tensor h = ops::add_positions(patches_.forward(x), positions_);  // (batch, tokens, width)
  for (const Block& block : blocks_) {
    h = ops::add(h, block.attn->forward(normalised(h), grid, grid));
    h = ops::add(h, nn::feed_forward(block.fc1, block.fc2, normalised(h), DType::f32));
  }
  return ops::mean_tokens(normalised(h));  // (batch, width)
}

void Classifier::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  patches_.visit(prefix + "patches.", visitor);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const std::string name = fmt::format("{}blocks.{}.", prefix, i);
    blocks_[i].attn->visit(name + "attn.", visitor);
    blocks_[i].fc1.visit(name + "mlp.fc1.", visitor);
    blocks_[i].fc2.visit(name + "mlp.fc2.", visitor);
  }
  head_.visit(prefix + "head.", visitor);
}

std::vector<int64_t> likeliest(const Tensor& logits) {
  const int64_t n = logits.size(0), classes = logits.size(1);
  const Tensor here = logits.host();
  const float* values = here.data<float>();
  std::vector<int64_t> result;
  for (int64_t i = 0; i < n; ++i)
    result.push_back(std::max_element(values + i * classes, values + (i + 1) * classes) -
                     (values + i * classes));
  return result;
}

}  // namespace linnet
