#include "models/vae.h"

#include <cmath>

#include "models/vae_blocks.h"
#include "ops/combine.h"
#include "ops/pixels.h"

namespace linnet {
namespace {

using namespace vae;

constexpr float norm_epsilon = 1e-6f, lowest_logvar = -30.0f, highest_logvar = 20.0f;

void visit_all(std::vector<ResnetBlock>& resnets, const std::string& prefix,
               const nn::ParameterVisitor& visitor) {
  for (size_t i = 0; i < resnets.size(); ++i)
    resnets[i].visit(fmt::format("{}resnets.{}.", prefix, i), visitor);
}

std::vector<ResnetBlock> make_resnets(int64_t in, int64_t out, int64_t count, int64_t groups) {
  std::vector<ResnetBlock> result;
  for (int64_t i = 0; i < count; ++i) result.emplace_back(i == 0 ? in : out, out, groups);
  return result;
}

struct DownBlock {
  std::vector<ResnetBlock> resnets;
  std::optional<nn::Conv2d> downsampler;
};

struct UpBlock {
  std::vector<ResnetBlock> resnets;
  std::optional<nn::UpsampleConv> upsampler;
};

}  // namespace

struct Vae::Encoder {
  explicit Encoder(const VaeConfig& c) {
    const auto& widths = c.block_out_channels;
    conv_in = {c.in_channels, widths.front(), 3};
    for (size_t i = 0; i < widths.size(); ++i) {
      DownBlock& block = blocks.emplace_back();
      block.resnets =
          make_resnets(i == 0 ? widths[0] : widths[i - 1], widths[i], c.layers_per_block, c.norm_num_groups);
      if (i + 1 < widths.size()) block.downsampler.emplace(widths[i], widths[i], 3);
    }
    mid.emplace(widths.back(), c.norm_num_groups, c.mid_block_add_attention);
    norm_out = {c.norm_num_groups, widths.back(), norm_epsilon};
    conv_out = {widths.back(), 2 * c.latent_channels, 3};
    if (c.use_quant_conv) quant.emplace(2 * c.latent_channels, 2 * c.latent_channels, 1);
  }

  Tensor forward(const Tensor& pictures) const {
    Tensor x = conv_in.forward(pictures);
    for (const DownBlock& block : blocks) {
      for (const ResnetBlock& resnet : block.resnets) x = resnet.forward(std::move(x));
      if (block.downsampler) x = block.downsampler->forward(x, {2, 0, 0, 1, 1}, x.dtype());
    }
    x = norm_out.forward(mid->forward(std::move(x)), true);
    x = conv_out.forward(x, conv_out.same(), DType::f32);
    return quant ? quant->forward(x) : x;
  }

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
    conv_in.visit(prefix + "conv_in.", visitor);
    for (size_t i = 0; i < blocks.size(); ++i) {
      const std::string name = fmt::format("{}down_blocks.{}.", prefix, i);
      visit_all(blocks[i].resnets, name, visitor);
      if (blocks[i].downsampler) blocks[i].downsampler->visit(name + "downsamplers.0.conv.", visitor);
    }
    mid->visit(prefix + "mid_block.", visitor);
    norm_out.visit(prefix + "conv_norm_out.", visitor);
    conv_out.visit(prefix + "conv_out.", visitor);
  }

  nn::Conv2d conv_in, conv_out;
  std::vector<DownBlock> blocks;
  std::optional<MidBlock> mid;
  nn::GroupNorm norm_out;
  std::optional<nn::Conv2d> quant;
};

struct Vae::Decoder {
  explicit Decoder(const VaeConfig& c) {
    widths.assign(c.block_out_channels.rbegin(), c.block_out_channels.rend());
    if (c.use_post_quant_conv) post_quant.emplace(c.latent_channels, c.latent_channels, 1);
    conv_in = {c.latent_channels, widths.front(), 3};
    mid.emplace(widths.front(), c.norm_num_groups, c.mid_block_add_attention);
    for (size_t i = 0; i < widths.size(); ++i) {
      UpBlock& block = blocks.emplace_back();
      block.resnets = make_resnets(i == 0 ? widths[0] : widths[i - 1], widths[i], c.layers_per_block + 1,
                                   c.norm_num_groups);
      if (i + 1 < widths.size()) block.upsampler.emplace(widths[i]);
    }
    norm_out = {c.norm_num_groups, widths.back(), norm_epsilon};
    conv_out = {widths.back(), c.out_channels, 3};
  }

  // Everything below the up blocks: small, and attention needs it whole.
  Tensor begin(const Tensor& latents, DType dtype) const {
    const Tensor z = post_quant ? post_quant->forward(latents) : latents;
    return after_block(mid->forward(conv_in.forward(z.to(dtype))));
  }

  Tensor after_block(Tensor x) const {
    if (on_block) on_block();
    return x;
  }

  // What the upsampler of the block before and this block's residual blocks make of x.
  Tensor forward(size_t i, Tensor x) const {
    if (i > 0) x = blocks[i - 1].upsampler->forward(x);
    for (const ResnetBlock& resnet : blocks[i].resnets) x = after_block(resnet.forward(std::move(x)));
    return x;
  }

  // The same of one picture in bands.
  Tensor forward_in_bands(size_t i, Tensor x, size_t memory) const {
    RowSource source = RowSource::of(x);
    x = {};
    if (i > 0) source = upsampled(source, *blocks[i - 1].upsampler);
    const auto& resnets = blocks[i].resnets;
    Tensor result = after_block(resnets[0].forward_in_bands(source));
    source = {};  // which holds x
    for (size_t j = 1; j < resnets.size(); ++j)
      result = after_block(resnets[j].forward_in_place(std::move(result), memory));
    return result;
  }

  // Whether a GPU's convolutions, which count the values of a picture in 32 bits, can do block i as a whole.
  bool can_count(size_t i, const Shape& in) const {
    const int64_t pixels = in[1] * in[2] * (i > 0 ? 4 : 1);
    return pixels * std::max(in[3], widths[i]) <= INT32_MAX;
  }

  // Blocks that would take more than `memory` bytes, and all above them, are done in bands.
  Tensor forward(Tensor x, size_t memory) const {
    bool whole = true;
    for (size_t i = 0; i < blocks.size(); ++i) {
      whole = whole && need(i, x.shape(), x.dtype()) <= memory && (!x.on_gpu() || can_count(i, x.shape()));
      x = whole ? forward(i, std::move(x)) : forward_in_bands(i, std::move(x), memory);
    }
    if (whole) {
      x = norm_out.forward(std::move(x), true);
      return ops::to_planes(conv_out.forward(x, conv_out.same(), DType::f32));
    }
    const RowSource source = RowSource::of(x);
    return ops::to_planes(
        gather(normalised_conv(source, norm_out, moments_of(source, norm_out), conv_out, DType::f32)));
  }

  // Bytes that block i takes of an input of that shape: the most of what lives at a time while it is enlarged,
  // and then in the residual blocks.
  size_t need(size_t i, const Shape& in, DType dtype) const {
    const auto before = static_cast<size_t>(in[-1]), after = static_cast<size_t>(widths[i]);
    const auto pixels = static_cast<size_t>(in.rows()) * (i > 0 ? 4 : 1);
    size_t values = pixels * std::max(before + 2 * after, 3 * after);
    if (i > 0) values = std::max(values, pixels * before * 3 / 2);
    return values * size_of(dtype);
  }

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
    conv_in.visit(prefix + "conv_in.", visitor);
    mid->visit(prefix + "mid_block.", visitor);
    for (size_t i = 0; i < blocks.size(); ++i) {
      const std::string name = fmt::format("{}up_blocks.{}.", prefix, i);
      visit_all(blocks[i].resnets, name, visitor);
      if (blocks[i].upsampler) blocks[i].upsampler->visit(name + "upsamplers.0.conv.", visitor);
    }
    norm_out.visit(prefix + "conv_norm_out.", visitor);
    conv_out.visit(prefix + "conv_out.", visitor);
  }

  std::vector<int64_t> widths;  // of the blocks, from the latents outwards
  std::optional<nn::Conv2d> post_quant;
  nn::Conv2d conv_in, conv_out;
  std::optional<MidBlock> mid;
  std::vector<UpBlock> blocks;
  nn::GroupNorm norm_out;
  std::function<void()> on_block;
};

Tensor LatentMoments::sample(const Tensor& noise) const {
  check(noise.shape() == mean.shape(), "noise of shape {} does not fit latents of shape {}",
        to_string(noise.shape()), to_string(mean.shape()));
  Tensor result = Tensor::empty(mean.shape());
  const Tensor here = noise.host();
  const float *m = mean.data<float>(), *v = logvar.data<float>(), *e = here.data<float>();
  for (int64_t i = 0; i < mean.numel(); ++i)
    result.mutable_data<float>()[i] = m[i] + std::exp(0.5f * v[i]) * e[i];
  return result;
}

Vae::Vae(const VaeConfig& config) : config_(config) {
  config_.validate();
  encoder_ = std::make_unique<Encoder>(config_);
  decoder_ = std::make_unique<Decoder>(config_);
}

void Vae::set_on_block(std::function<void()> on_block) { decoder_->on_block = std::move(on_block); }

Vae::Vae(Vae&&) noexcept = default;
Vae::~Vae() = default;

LatentMoments Vae::encode(const Tensor& pictures) const {
  const int64_t step = config_.reduction();
  check(pictures.shape().rank() == 4 && pictures.size(1) == config_.in_channels && pictures.numel() > 0 &&
            pictures.size(2) % step == 0 && pictures.size(3) % step == 0,
        "the autoencoder takes pictures of {} channels whose sides are multiples of {}, not of shape {}",
        config_.in_channels, step, to_string(pictures.shape()));
  const Tensor there = pictures.on_gpu() ? pictures : pictures.to(encoder_->conv_in.weight.value.device());
  const Tensor both = ops::to_planes(encoder_->forward(ops::to_pixels(there, dtype_))).host();
  const int64_t latent = config_.latent_channels;
  LatentMoments result{ops::channels(both, 0, latent), ops::channels(both, latent, latent)};
  float* logvar = result.logvar.mutable_data<float>();
  for (int64_t i = 0; i < result.logvar.numel(); ++i)
    logvar[i] = std::clamp(logvar[i], lowest_logvar, highest_logvar);
  return result;
}

Tensor Vae::decode(const Tensor& latents, size_t memory) const {
  check(latents.shape().rank() == 4 && latents.size(1) == config_.latent_channels && latents.numel() > 0,
        "the autoencoder decodes latents of {} channels, not of shape {}", config_.latent_channels,
        to_string(latents.shape()));
  const Tensor there = latents.on_gpu() ? latents : latents.to(decoder_->conv_in.weight.value.device());
  const Tensor z = ops::to_pixels(there, DType::f32);
  const int64_t reduction = config_.reduction();
  const int64_t pixels = z.size(1) * z.size(2) * reduction * reduction;
  const bool may_be_vast = z.on_gpu() && pixels * std::ranges::max(config_.block_out_channels) > INT32_MAX;
  if (memory == 0 && !may_be_vast) return decoder_->forward(decoder_->begin(z, dtype_), SIZE_MAX);
  std::vector<Tensor> decoded;
  for (int64_t i = 0; i < z.size(0); ++i)
    decoded.push_back(
        decoder_->forward(decoder_->begin(z.rows(i, i + 1), dtype_), memory == 0 ? SIZE_MAX : memory));
  return ops::concat_rows(decoded);
}

size_t Vae::decode_memory(int64_t latent_height, int64_t latent_width) const {
  Shape shape{1, latent_height, latent_width, config_.block_out_channels.back()};
  size_t most = 0;
  for (size_t i = 0; i < decoder_->blocks.size(); ++i) {
    const int64_t scale = i > 0 ? 2 : 1;
    most = std::max(most, decoder_->need(i, shape, dtype_));
    shape = {1, shape[1] * scale, shape[2] * scale, decoder_->widths[i]};
  }
  return most;
}

void Vae::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  encoder_->visit(prefix + "encoder.", visitor);
  decoder_->visit(prefix + "decoder.", visitor);
  if (encoder_->quant) encoder_->quant->visit(prefix + "quant_conv.", visitor);
  if (decoder_->post_quant) decoder_->post_quant->visit(prefix + "post_quant_conv.", visitor);
}

void Vae::set_product_dtype(DType dtype) {
  check(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16,
        "an autoencoder works in f32, bf16 or f16, not {}", name_of(dtype));
  dtype_ = dtype;
}

}  // namespace linnet
