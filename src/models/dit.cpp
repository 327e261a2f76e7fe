#include "models/dit.h"

#include "core/tape.h"
#include "nn/modulation.h"
#include "nn/product_type.h"
#include "ops/activation.h"
#include "ops/arrange.h"
#include "ops/matmul.h"

namespace linnet {
namespace {

constexpr float norm_epsilon = 1e-6f;

}  // namespace

DiTBlock::DiTBlock(const DiTConfig& config)
    : attn_(nn::make_mixer(config.mixer, config.hidden_size, config.num_heads, config.tokens())),
      fc1_(config.hidden_size, config.mlp_size()), fc2_(config.mlp_size(), config.hidden_size),
      adaln_(config.hidden_size, 6 * config.hidden_size, nn::Init::zero()) {}

// x ← x + gate·branch(norm(x)·(1 + scale) + shift), where the branch is first the mixer and then the MLP. What
// comes out of a branch waits beside the stream until the next norm, which adds it on its way
// (ops/residual_norm.h).
ops::Residual DiTBlock::forward(ops::Residual stream, const Tensor& conditioning, int64_t grid) const {
  const DType dtype = conditioning.dtype();
  const nn::BlockModulation m = nn::block_modulation(adaln_.forward(conditioning, DType::f32));
  const auto [x, to_mix] =
      ops::join_and_norm(std::move(stream), m.mixer.shift, m.mixer.scale, norm_epsilon, dtype);
  const Tensor mixed = attn_->forward(to_mix, grid, grid);
  const auto [y, to_mlp] =
      ops::join_and_norm({x, m.mixer.gate, mixed}, m.mlp.shift, m.mlp.scale, norm_epsilon, dtype);
  return {y, m.mlp.gate, nn::feed_forward(fc1_, fc2_, to_mlp, dtype)};
}

void DiTBlock::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  attn_->visit(prefix + "attn.", visitor);
  fc1_.visit(prefix + "mlp.fc1.", visitor);
  fc2_.visit(prefix + "mlp.fc2.", visitor);
  adaln_.visit(prefix + "adaLN_modulation.1.", visitor);
}

DiT::DiT(const DiTConfig& config) : config_(config) {
  config_.validate();
  const int64_t width = config_.hidden_size, patch = config_.patch_size;
  x_embedder_ = nn::PatchEmbed(config_.in_channels, patch, width);
  t_embedder_ = nn::TimestepEmbedder(width);
  y_embedder_ = nn::LabelEmbedder(config_.num_classes, config_.null_class(), width);
  pos_embed_ = {{1, config_.tokens(), width}, nn::Init::computed()};
  pos_embed_.value = nn::sincos_positions(config_.grid(), config_.grid(), width).reshape(pos_embed_.shape);
  blocks_.reserve(static_cast<size_t>(config_.depth));
  for (int64_t i = 0; i < config_.depth; ++i) blocks_.emplace_back(config_);
  final_linear_ = nn::Linear(width, patch * patch * config_.out_channels(), nn::Init::zero());
  final_adaln_ = nn::Linear(width, 2 * width, nn::Init::zero());
}

Tensor DiT::forward(const Tensor& x, const Tensor& t, const Tensor& y) const {
  const int64_t size = config_.input_size, grid = config_.grid();
  check(x.shape().rank() == 4 && x.size(1) == config_.in_channels && x.size(2) == size && x.size(3) == size,
        "the model takes pictures of shape (n, {}, {}, {}), not {}", config_.in_channels, size, size,
        to_string(x.shape()));
  check(t.numel() == x.size(0) && y.numel() == x.size(0),
        "{} pictures need as many timesteps and classes, not {} and {}", x.size(0), t.numel(), y.numel());

  // (batch, tokens, width)
  ops::Residual stream{ops::add_positions(x_embedder_.forward(x), pos_embed_.value), {}, {}};
  const Tensor c = ops::add(t_embedder_.forward(t), y_embedder_.forward(y));  // (batch, width)
  const Tensor conditioning = ops::silu(c, nn::hidden_type(product_dtype_, c.device()));
  for (const DiTBlock& block : blocks_) {
    if (checkpointing_)
      stream.x = checkpoint(
          [&block, grid](const std::vector<Tensor>& in) {
            return ops::joined(block.forward({in[0], {}, {}}, in[1], grid));
          },
          {stream.x, conditioning});
    else
      stream = block.forward(std::move(stream), conditioning, grid);
  }
  const auto m = ops::chunk(final_adaln_.forward(ops::silu(c, DType::f32), DType::f32), 2);  // shift, scale
  const Tensor h = ops::join_and_norm(std::move(stream), m[0], m[1], norm_epsilon, DType::f32).normed;
  const Tensor patches = final_linear_.forward(h, DType::f32);
  return ops::unpatchify(patches, grid, grid, config_.patch_size);
}

void DiT::set_product_dtype(DType dtype) {
  nn::set_product_type(*this, dtype);
  product_dtype_ = dtype;
}

DType DiT::product_dtype_from_name(std::string_view name, const Device& device) const {
  return nn::product_type_from_name(name, blocks_.front().stored_in_8_bits(), device);
}

void DiT::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  visitor(prefix + "pos_embed", pos_embed_);
  x_embedder_.visit(prefix + "x_embedder.", visitor);
  t_embedder_.visit(prefix + "t_embedder.", visitor);
  y_embedder_.visit(prefix + "y_embedder.", visitor);
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i].visit(fmt::format("{}blocks.{}.", prefix, i), visitor);
  final_linear_.visit(prefix + "final_layer.linear.", visitor);
  final_adaln_.visit(prefix + "final_layer.adaLN_modulation.1.", visitor);
}

}  // namespace linnet
