#include "models/pixart.h"

#include <algorithm>
#include <cmath>

#include "core/tape.h"
#include "nn/modulation.h"
#include "nn/product_type.h"
#include "ops/activation.h"
#include "ops/arrange.h"
#include "ops/cast.h"
#include "ops/combine.h"

namespace linnet {
namespace {

constexpr float norm_epsilon = 1e-6f;

// The published 0.02 is for layers with inputs as wide as the published model has. Narrower ones need larger
// weights to say as much: with 0.02, a text of 128 channels would reach the blocks of a model of 192 some
// √(4096/128 · 1152/192) = 14 times fainter.
nn::Init as_loud_as_with(int64_t published_width, int64_t width) {
  return nn::Init::normal(0.02f * std::sqrt(static_cast<float>(published_width) / static_cast<float>(width)));
}

nn::Init table_init(int64_t width) { return nn::Init::normal(1.0f / std::sqrt(static_cast<float>(width))); }

// x (batch, tokens, d) as the matrix of all its tokens; gradients pass.
Tensor all_tokens(const Tensor& x) { return x.reshape({x.size(0) * x.size(1), x.size(2)}); }

}  // namespace

TextStates TextStates::part(int64_t begin, int64_t end) const {
  TextStates result{{}, {offsets.begin() + begin, offsets.begin() + end + 1}};
  const int64_t first = result.offsets.front();
  result.states = states.rows(first, result.offsets.back());
  for (int64_t& offset : result.offsets) offset -= first;
  return result;
}

TextStates join(const std::vector<Tensor>& texts) {
  const int64_t width = texts.at(0).size(1);
  ops::Offsets offsets{0};
  for (const Tensor& text : texts) {
    check(text.size(1) == width, "texts' states of widths {} and {} do not go together", width, text.size(1));
    offsets.push_back(offsets.back() + text.size(0));
  }
  return {ops::concat_rows(texts), offsets};
}

PixArtBlock::PixArtBlock(const PixArtConfig& config, int64_t index)
    : cross_heads_(config.num_cross_heads), table_({6, config.hidden_size}, table_init(config.hidden_size)),
      attn_(nn::make_mixer(config.mixer, config.hidden_size, config.num_heads,
                           config.sample_size / config.patch_size * (config.sample_size / config.patch_size),
                           {config.qk_norm, config.kv_compression_of(index)})),
      cross_q_(config.hidden_size, config.hidden_size), cross_kv_(config.hidden_size, 2 * config.hidden_size),
      cross_proj_(config.hidden_size, config.hidden_size, nn::Init::zero()),
      fc1_(config.hidden_size, config.mlp_size()), fc2_(config.mlp_size(), config.hidden_size) {}

ops::Residual PixArtBlock::forward(ops::Residual stream, const Tensor& modulation, const Tensor& text,
                                   const ops::Offsets& offsets, int64_t rows, int64_t columns) const {
  const DType dtype = text.dtype();
  const nn::BlockModulation m = nn::block_modulation(ops::add_row(modulation, table_.value));
  const auto [x, to_mix] =
      ops::join_and_norm(std::move(stream), m.mixer.shift, m.mixer.scale, norm_epsilon, dtype);
  const Tensor mixed = ops::joined({x, m.mixer.gate, attn_->forward(to_mix, rows, columns)});

  // Neither norm nor gate around the text.
  const int64_t width = mixed.size(2);
  const ops::RaggedAttention how{ops::even_offsets(mixed.size(0), mixed.size(1)), offsets, cross_heads_,
                                 1.0f / std::sqrt(static_cast<float>(width / cross_heads_))};
  const Tensor q = cross_q_.forward(ops::cast(mixed, dtype), dtype);
  const Tensor attended = ops::ragged_attention(all_tokens(q), cross_kv_.forward(text, dtype), how);
  const Tensor of_text = cross_proj_.forward(attended, DType::f32).reshape(mixed.shape());
  const auto [y, to_mlp] =
      ops::join_and_norm({mixed, {}, of_text}, m.mlp.shift, m.mlp.scale, norm_epsilon, dtype);
  return {y, m.mlp.gate, nn::feed_forward(fc1_, fc2_, to_mlp, dtype)};
}

void PixArtBlock::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  visitor(prefix + "scale_shift_table", table_);
  attn_->visit(prefix + "attn.", visitor);
  cross_q_.visit(prefix + "cross_attn.q_linear.", visitor);
  cross_kv_.visit(prefix + "cross_attn.kv_linear.", visitor);
  cross_proj_.visit(prefix + "cross_attn.proj.", visitor);
  fc1_.visit(prefix + "mlp.fc1.", visitor);
  fc2_.visit(prefix + "mlp.fc2.", visitor);
}

PixArt::PixArt(const PixArtConfig& config) : config_(config) {
  config_.validate();
  const int64_t width = config_.hidden_size, patch = config_.patch_size;
  const nn::Init inner = as_loud_as_with(1152, width),
                 from_text = as_loud_as_with(4096, config_.caption_channels);
  x_embedder_ = nn::PatchEmbed(config_.in_channels, patch, width);
  t_embedder_ = nn::TimestepEmbedder(width, inner);
  if (config_.micro_conditions)
    size_embedder_ = ratio_embedder_ = nn::TimestepEmbedder(width / 3, as_loud_as_with(384, width / 3));
  t_block_ = nn::Linear(width, 6 * width, inner);
  text_fc1_ = nn::Linear(config_.caption_channels, width, from_text);
  text_fc2_ = nn::Linear(width, width, inner);
  null_caption_ = {{config_.caption_tokens, config_.caption_channels},
                   nn::Init::normal(1.0f / std::sqrt(static_cast<float>(config_.caption_channels)))};
  blocks_.reserve(static_cast<size_t>(config_.depth));
  for (int64_t i = 0; i < config_.depth; ++i) blocks_.emplace_back(config_, i);
  final_linear_ = nn::Linear(width, patch * patch * config_.out_channels(), nn::Init::zero());
  final_table_ = {{2, width}, table_init(width)};
}

// (batch, width): what adaLN starts from.
Tensor PixArt::time_and_size(const Tensor& t, int64_t batch, const PictureSize& size) const {
  const Tensor time = t_embedder_.forward(t);
  if (!config_.micro_conditions) return time;
  const auto each = static_cast<size_t>(batch);
  std::vector<float> sides;
  for (size_t i = 0; i < each; ++i) sides.insert(sides.end(), {size.height, size.width});
  const std::vector<float> ratios(each, size.height / size.width);
  const Tensor of_sides = size_embedder_.forward(Tensor::from(sides).to(t.device()));  // (2·batch, width/3)
  return ops::add(time, ops::concat_columns(of_sides.reshape({batch, 2 * of_sides.size(1)}),
                                            ratio_embedder_.forward(Tensor::from(ratios).to(t.device()))));
}

Tensor PixArt::forward(const Tensor& x, const Tensor& t, const TextStates& texts,
                       std::optional<PictureSize> size) const {
  const int64_t patch = config_.patch_size;
  check(x.shape().rank() == 4 && x.size(0) > 0 && x.size(1) == config_.in_channels && x.size(2) > 0 &&
            x.size(3) > 0 && x.size(2) % patch == 0 && x.size(3) % patch == 0,
        "the model takes latents of shape (n, {}, h, w), h and w multiples of {}, not {}", config_.in_channels,
        patch, to_string(x.shape()));
  const int64_t batch = x.size(0), rows = x.size(2) / patch, columns = x.size(3) / patch;
  check(t.numel() == batch && texts.count() == batch,
        "{} pictures need as many timesteps and texts, not {} and {}", batch, t.numel(), texts.count());
  check(texts.states.shape().rank() == 2 && texts.states.size(1) == config_.caption_channels,
        "the model takes texts' states of width {}, not of shape {}", config_.caption_channels,
        to_string(texts.states.shape()));
  constexpr float pixels_a_latent = 8;
  const PictureSize told = size.value_or(PictureSize{static_cast<float>(x.size(2)) * pixels_a_latent,
                                                     static_cast<float>(x.size(3)) * pixels_a_latent});

  const double base = static_cast<double>(config_.sample_size / patch) / config_.interpolation;
  const Tensor patches = x_embedder_.forward(x);
  const Tensor positions = positions_.get(rows, columns, config_.hidden_size, base / static_cast<double>(rows),
                                          base / static_cast<double>(columns), patches.device());
  ops::Residual stream{ops::add_positions(patches, positions), {}, {}};  // (batch, tokens, width)
  const Tensor time = time_and_size(t, batch, told);
  const Tensor modulation = t_block_.forward(ops::silu(time, DType::f32), DType::f32);
  const DType dtype = nn::hidden_type(product_dtype_, patches.device());
  const Tensor text =
      nn::feed_forward(text_fc1_, text_fc2_, ops::cast(texts.states.to(patches.device()), dtype), dtype);
  const ops::Offsets& offsets = texts.offsets;
  for (const PixArtBlock& block : blocks_) {
    if (checkpointing_)
      stream.x = checkpoint(
          [&block, offsets, rows, columns](const std::vector<Tensor>& in) {
            return ops::joined(block.forward({in[0], {}, {}}, in[1], in[2], offsets, rows, columns));
          },
          {stream.x, modulation, text});
    else
      stream = block.forward(std::move(stream), modulation, text, offsets, rows, columns);
    if (on_block_) on_block_();
  }
  const auto m = ops::chunk(ops::add_row(ops::concat_columns(time, time), final_table_.value), 2);
  const Tensor h = ops::join_and_norm(std::move(stream), m[0], m[1], norm_epsilon, DType::f32).normed;
  const Tensor painted = final_linear_.forward(h, DType::f32);
  return ops::unpatchify(painted, rows, columns, patch);
}

TextStates PixArt::null_text() const {
  check(config_.null_caption && null_caption_.value.defined(), "this model has no embedding of no text");
  return {null_caption_.value.to(DType::f32), {0, config_.caption_tokens}};
}

void PixArt::set_product_dtype(DType dtype) {
  nn::set_product_type(*this, dtype);
  product_dtype_ = dtype;
}

DType PixArt::product_dtype_from_name(std::string_view name, const Device& device) const {
  return nn::product_type_from_name(name, blocks_.front().stored_in_8_bits(), device);
}

void PixArt::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  x_embedder_.visit(prefix + "x_embedder.", visitor);
  t_embedder_.visit(prefix + "t_embedder.", visitor);
  t_block_.visit(prefix + "t_block.1.", visitor);
  text_fc1_.visit(prefix + "y_embedder.y_proj.fc1.", visitor);
  text_fc2_.visit(prefix + "y_embedder.y_proj.fc2.", visitor);
  if (config_.null_caption) visitor(prefix + "y_embedder.y_embedding", null_caption_);
  if (config_.micro_conditions) {
    size_embedder_.visit(prefix + "csize_embedder.", visitor);
    ratio_embedder_.visit(prefix + "ar_embedder.", visitor);
  }
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i].visit(fmt::format("{}blocks.{}.", prefix, i), visitor);
  final_linear_.visit(prefix + "final_layer.linear.", visitor);
  visitor(prefix + "final_layer.scale_shift_table", final_table_);
}

}  // namespace linnet
