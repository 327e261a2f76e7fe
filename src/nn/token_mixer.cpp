#include "nn/token_mixer.h"

#include <array>
#include <optional>

#include "core/printable.h"
#include "ops/arrange.h"
#include "ops/compress_tokens.h"
#include "ops/focused_map.h"
#include "ops/layer_norm_modulate.h"
#include "ops/linear_attention.h"
#include "ops/softmax_attention.h"

namespace linnet::nn {
namespace {

constexpr int64_t conv_kernel = 5;

// Layer norm with a learned gain and shift. The few learned values are f32, however the file stores them.
class LayerNorm {
 public:
  explicit LayerNorm(int64_t width) : weight_({width}, Init::one()), bias_({width}, Init::zero()) {}

  Tensor forward(const Tensor& x, DType out_dtype) const {  // x (batch, tokens, width)
    constexpr float epsilon = 1e-5f;                        // PyTorch's LayerNorm, unless told otherwise
    const int64_t width = x.size(2);
    const Tensor shift = bias_.value.to(DType::f32).reshape({1, width});
    // A modulation multiplies by 1 + scale.
    const Tensor scale =
        ops::add(weight_.value.to(DType::f32), Tensor::full({width}, -1.0f)).reshape({1, width});
    const Tensor tokens = x.reshape({1, x.size(0) * x.size(1), width});
    return ops::layer_norm_modulate(tokens, shift, scale, epsilon, out_dtype).reshape(x.shape());
  }

  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    visitor(prefix + "weight", weight_);
    visitor(prefix + "bias", bias_);
  }

 private:
  Parameter weight_, bias_;
};

// Squares of tokens become one each: the same of keys and of values. Starts as the mean, as PixArt-Σ's does.
class Compression {
 public:
  Compression(int64_t width, int64_t side)
      : weight_({width, 1, side, side}, Init::constant(1.0f / static_cast<float>(side * side))),
        bias_({width}, Init::zero()), norm_(width) {}

  Tensor forward(const Tensor& x, int64_t rows, int64_t columns) const {
    const Tensor fewer = ops::compress_tokens(x, weight_.value.to(DType::f32), bias_.value.to(DType::f32), rows,
                                              columns);  // (batch, ⌊rows/side⌋·⌊columns/side⌋, width)
    return norm_.forward(fewer, x.dtype());
  }

  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    visitor(prefix + "sr.weight", weight_);
    visitor(prefix + "sr.bias", bias_);
    norm_.visit(prefix + "norm.", visitor);
  }

 private:
  Parameter weight_, bias_;
  LayerNorm norm_;
};

// Names as DiT and, of the extras, PixArt-Σ.
class SoftmaxAttention : public TokenMixer {
 public:
  SoftmaxAttention(int64_t width, int64_t heads, const SoftmaxExtras& extras)
      : heads_(heads), qkv_(width, 3 * width), proj_(width, width) {
    if (extras.qk_norm) {
      q_norm_.emplace(width);
      k_norm_.emplace(width);
    }
    if (extras.kv_compression > 1) compression_.emplace(width, extras.kv_compression);
  }

  Tensor forward(const Tensor& x, int64_t rows, int64_t columns) const override {
    return proj_.forward(attend(x, rows, columns), x.dtype());
  }

  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    qkv_.visit(prefix + "qkv.", visitor);
    proj_.visit(prefix + "proj.", visitor);
    if (compression_) compression_->visit(prefix, visitor);
    if (q_norm_) q_norm_->visit(prefix + "q_norm.", visitor);
    if (k_norm_) k_norm_->visit(prefix + "k_norm.", visitor);
  }

 private:
  Tensor attend(const Tensor& x, int64_t rows, int64_t columns) const {
    const DType dtype = x.dtype();
    // (batch, tokens, 3·width)
    if (!q_norm_ && !compression_) return ops::softmax_attention(qkv_.forward(x, dtype), heads_);
    std::vector<Tensor> parts = ops::chunk(qkv_.forward(x, dtype), 3);
    Tensor &q = parts[0], &k = parts[1], &v = parts[2];  // (batch, tokens, width)
    if (q_norm_) {
      q = q_norm_->forward(q, dtype);
      k = k_norm_->forward(k, dtype);
    }
    if (compression_) {
      k = compression_->forward(k, rows, columns);
      v = compression_->forward(v, rows, columns);
    }
    return ops::softmax_attention(q, k, v, heads_);
  }

  int64_t heads_;
  BlockLinear qkv_, proj_;
  std::optional<LayerNorm> q_norm_, k_norm_;
  std::optional<Compression> compression_;
};

// What focused attention learns about its features. Names and initial values as the official FLatten.
class Focus {
 public:
  Focus(Mixer mixer, int64_t width, int64_t tokens)
      : activation_(mixer == Mixer::focused_gelu ? ops::FocusedActivation::gelu : ops::FocusedActivation::relu),
        scale_({1, 1, width}, Init::zero()), positions_({1, tokens, width}, Init::zero()) {}

  // The few learned values are f32, however the file stores them.
  Tensor queries(const Tensor& q) const {
    return ops::focused_map(q, scale_.value.to(DType::f32), {}, activation_);
  }
  Tensor keys(const Tensor& kv) const {
    return ops::focused_map(kv, scale_.value.to(DType::f32), positions_.value.to(DType::f32), activation_);
  }

  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    visitor(prefix + "scale", scale_);
    visitor(prefix + "positional_encoding", positions_);
  }

 private:
  ops::FocusedActivation activation_;
  Parameter scale_, positions_;
};

// LiT's convolution of the values, one filter for each channel of a head, shared by all heads. The few weights
// are f32, however the file stores them (to() copies no f32).
class HeadConvolution {
 public:
  explicit HeadConvolution(int64_t head_size)
      : weight_({head_size, 1, conv_kernel, conv_kernel}, Init::uniform(bound)),
        bias_({head_size}, Init::uniform(bound)) {}

  Tensor weight() const { return weight_.value.to(DType::f32); }
  Tensor bias() const { return bias_.value.to(DType::f32); }

  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    visitor(prefix + "dwc.weight", weight_);
    visitor(prefix + "dwc.bias", bias_);
  }

 private:
  static constexpr float bound = 1.0f / static_cast<float>(conv_kernel);  // PyTorch's Conv2d: 1/√fan_in
  Parameter weight_, bias_;
};

// All linear attentions: q̂ᵢ(Σⱼ k̂ⱼᵀvⱼ)/(q̂ᵢ·Σⱼ k̂ⱼ), of LiT with the convolution of v added (LiT, eq. 3;
// ops/linear_attention.h). Names as the official LiT: q, kv, proj and, with the convolution, dwc.
class LinearAttention : public TokenMixer {
 public:
  LinearAttention(Mixer mixer, int64_t width, int64_t heads, int64_t tokens)
      : heads_(heads), q_(width, width), kv_(width, 2 * width), proj_(width, width) {
    if (is_focused(mixer)) focus_.emplace(mixer, width, tokens);
    if (has_convolution(mixer)) convolution_.emplace(width / heads);
  }

  Tensor forward(const Tensor& x, int64_t rows, int64_t columns) const override {
    Tensor q = q_.forward(x, x.dtype());    // (batch, tokens, width)
    Tensor kv = kv_.forward(x, x.dtype());  // (batch, tokens, 2·width)
    auto map = ops::FeatureMap::relu;
    if (focus_) {
      q = focus_->queries(q);
      kv = focus_->keys(kv);
      map = ops::FeatureMap::none;
    }
    const Tensor mixed = convolution_
                             ? ops::linear_attention_conv(q, kv, convolution_->weight(), convolution_->bias(),
                                                          heads_, rows, columns, map)
                             : ops::linear_attention(q, kv, heads_, map);
    return proj_.forward(mixed, x.dtype());
  }

  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    q_.visit(prefix + "q.", visitor);
    kv_.visit(prefix + "kv.", visitor);
    proj_.visit(prefix + "proj.", visitor);
    if (focus_) focus_->visit(prefix, visitor);
    if (convolution_) convolution_->visit(prefix, visitor);
  }

 private:
  int64_t heads_;
  BlockLinear q_, kv_, proj_;
  std::optional<Focus> focus_;
  std::optional<HeadConvolution> convolution_;
};

constexpr std::array<std::string_view, 5> mixer_names = {"softmax", "linear", "lit", "focused", "focused_gelu"};

}  // namespace

std::string_view name_of(Mixer mixer) { return mixer_names[static_cast<size_t>(mixer)]; }

Mixer mixer_from_name(std::string_view name) {
  for (size_t i = 0; i < mixer_names.size(); ++i)
    if (mixer_names[i] == name) return static_cast<Mixer>(i);
  throw UsageError(fmt::format("there is no token mixer \"{}\"; known: {}", printable(name), known_mixers()));
}

std::string known_mixers() { return fmt::format("{}", fmt::join(mixer_names, ", ")); }

std::unique_ptr<TokenMixer> make_mixer(Mixer mixer, int64_t width, int64_t heads, int64_t tokens,
                                       const SoftmaxExtras& extras) {
  if (heads <= 0 || width % heads != 0)
    throw UsageError(fmt::format("{} heads cannot share a width of {} evenly", heads, width));
  if (mixer == Mixer::softmax) return std::make_unique<SoftmaxAttention>(width, heads, extras);
  if (extras.any())
    throw UsageError(fmt::format(
        "the mixer {} has no norms of q and k and no compression of keys and values: softmax attention has",
        name_of(mixer)));
  return std::make_unique<LinearAttention>(mixer, width, heads, tokens);
}

int64_t mixer_macs(Mixer mixer, int64_t width, int64_t heads, int64_t tokens) {
  const int64_t projections = 4 * tokens * width * width;
  if (mixer == Mixer::softmax) return projections + 2 * tokens * tokens * width;
  const int64_t convolution = has_convolution(mixer) ? conv_kernel * conv_kernel * tokens * width : 0;
  return projections + 3 * tokens * width * width / heads + convolution;
}

double attention_flops(Mixer mixer, int64_t width, int64_t heads, int64_t tokens, int64_t keys) {
  const int64_t seen = mixer == Mixer::softmax ? keys : width / heads;
  return 4 * static_cast<double>(tokens * width) * static_cast<double>(seen);
}

double mixer_flops(Mixer mixer, int64_t width, int64_t heads, int64_t tokens, int64_t keys) {
  const double projections = 8 * static_cast<double>(tokens * width) * static_cast<double>(width);
  return projections + attention_flops(mixer, width, heads, tokens, keys);
}

}  // namespace linnet::nn
