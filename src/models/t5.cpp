#include "models/t5.h"

#include <cmath>

#include "ops/activation.h"
#include "ops/arrange.h"
#include "ops/rms_norm.h"

namespace linnet {
namespace {

nn::Init normal(int64_t fan) { return nn::Init::normal(1.0f / std::sqrt(static_cast<float>(fan))); }

nn::Linear projection(int64_t in, int64_t out, nn::Init init) {
  nn::Linear result = nn::Linear::without_bias(in, out, init);
  result.weight.block_matrix = true;
  result.streamed = true;  // a text is encoded once a picture, and T5-XXL is larger than all the rest
  return result;
}

// Which row of the table the distance from a query to a key has: half of them for keys behind the query, half
// for those before it; in each half, half for single distances and half for ranges that grow by a factor.
int64_t bucket_of(int64_t distance, const T5Config& config) {
  const int64_t half = config.distance_buckets / 2, exact = half / 2;
  const int64_t first = distance > 0 ? half : 0, steps = std::abs(distance);
  if (steps < exact) return first + steps;
  const float share =
      std::log(static_cast<float>(steps) / static_cast<float>(exact)) /
      static_cast<float>(std::log(static_cast<double>(config.max_distance) / static_cast<double>(exact)));
  const auto further = static_cast<int64_t>(share * static_cast<float>(half - exact));
  return first + std::min(exact + further, half - 1);
}

void require(bool condition, std::string_view sentence) {
  if (!condition) throw UsageError(fmt::format("impossible text encoder: {}", sentence));
}

}  // namespace

void T5Config::validate() const {
  require(vocabulary > 0 && vocabulary <= (1 << 24), "the vocabulary must lie in 1..16777216");
  require(width > 0 && width <= 65536, "the width must lie in 1..65536");
  require(hidden > 0 && hidden <= (1 << 20), "the hidden width must lie in 1..1048576");
  require(depth > 0 && depth <= 1024, "depth must lie in 1..1024");
  require(heads > 0 && head_size > 0 && heads <= 65536 / head_size, "that many heads of that size");
  require(distance_buckets >= 4 && distance_buckets <= 4096 && distance_buckets % 4 == 0,
          "relative positions have 4 to 4096 buckets, a multiple of 4");
  require(max_distance > distance_buckets / 4 && max_distance <= (1 << 20),
          "the largest distance must exceed a quarter of the buckets");
  require(norm_epsilon > 0 && norm_epsilon < 1, "the norms' epsilon must be above 0 and below 1");
}

T5Block::T5Block(const T5Config& c)
    : attention_norm_({c.width}, nn::Init::one()), hidden_norm_({c.width}, nn::Init::one()),
      q_(projection(c.width, c.heads * c.head_size, normal(c.width * c.head_size))),
      k_(projection(c.width, c.heads * c.head_size, normal(c.width))),
      v_(projection(c.width, c.heads * c.head_size, normal(c.width))),
      o_(projection(c.heads * c.head_size, c.width, normal(c.heads * c.head_size))),
      gate_(projection(c.width, c.hidden, normal(c.width))),
      up_(projection(c.width, c.hidden, normal(c.width))),
      down_(projection(c.hidden, c.width, normal(c.hidden))) {}

Tensor T5Block::forward(const Tensor& x, const ops::RaggedAttention& how, const Tensor& bias, float epsilon,
                        DType dtype) const {
  const Tensor h = ops::rms_norm(x, attention_norm_.value, epsilon, dtype);
  const Tensor attended =
      ops::ragged_attention(q_.forward(h, dtype), k_.forward(h, dtype), v_.forward(h, dtype), bias, how);
  const Tensor mixed = ops::add(x, o_.forward(attended, DType::f32));
  const Tensor h2 = ops::rms_norm(mixed, hidden_norm_.value, epsilon, dtype);
  const Tensor hidden = ops::gated_gelu(gate_.forward(h2, dtype), up_.forward(h2, dtype));
  return ops::add(mixed, down_.forward(hidden, DType::f32));
}

void T5Block::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  const std::string attention = prefix + "layer.0.SelfAttention.", dense = prefix + "layer.1.DenseReluDense.";
  q_.visit(attention + "q.", visitor);
  k_.visit(attention + "k.", visitor);
  v_.visit(attention + "v.", visitor);
  o_.visit(attention + "o.", visitor);
  visitor(prefix + "layer.0.layer_norm.weight", attention_norm_);
  gate_.visit(dense + "wi_0.", visitor);
  up_.visit(dense + "wi_1.", visitor);
  down_.visit(dense + "wo.", visitor);
  visitor(prefix + "layer.1.layer_norm.weight", hidden_norm_);
}

T5Encoder::T5Encoder(const T5Config& config) : config_(config) {
  config_.validate();
  tokens_ = {{config_.vocabulary, config_.width}, nn::Init::normal(1.0f)};
  // With T5's own 1/√width attention begins all but blind to the order of words, and a small encoder stays so
  // for thousands of steps: "a red star above a blue ring" and "a blue star above a red ring" are the same to
  // it.
  distances_ = {{config_.distance_buckets, config_.heads}, nn::Init::normal(2.5f)};
  final_norm_ = {{config_.width}, nn::Init::one()};
  blocks_.reserve(static_cast<size_t>(config_.depth));
  for (int64_t i = 0; i < config_.depth; ++i) blocks_.emplace_back(config_);
}

Tensor T5Encoder::relative_bias(int64_t length) const {
  std::vector<int64_t> buckets;
  for (int64_t distance = 1 - length; distance < length; ++distance)
    buckets.push_back(bucket_of(distance, config_));
  return ops::transpose(ops::embedding(distances_.value, Tensor::from(buckets)));  // (heads, 2·length − 1)
}

Tensor T5Encoder::forward(const Tensor& ids, const ops::Offsets& offsets,
                          const std::function<void()>& on_block) const {
  int64_t longest = 1;
  for (size_t i = 1; i < offsets.size(); ++i) longest = std::max(longest, offsets[i] - offsets[i - 1]);
  const ops::RaggedAttention how{offsets, offsets, config_.heads, 1.0f};
  const Tensor bias = relative_bias(longest);
  Tensor x = ops::embedding(tokens_.value, ids);
  for (const T5Block& block : blocks_) {
    x = block.forward(x, how, bias, config_.norm_epsilon, dtype_);
    if (on_block) on_block();
  }
  return ops::rms_norm(x, final_norm_.value, config_.norm_epsilon, DType::f32);
}

void T5Encoder::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  visitor(prefix + "shared.weight", tokens_);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const std::string block = fmt::format("{}encoder.block.{}.", prefix, i);
    blocks_[i].visit(block, visitor);
    if (i == 0) visitor(block + "layer.0.SelfAttention.relative_attention_bias.weight", distances_);
  }
  visitor(prefix + "encoder.final_layer_norm.weight", final_norm_);
}

void T5Encoder::set_product_dtype(DType dtype) {
  check(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16,
        "a text encoder's products are in f32, bf16 or f16, not {}", name_of(dtype));
  dtype_ = dtype;
}

}  // namespace linnet
