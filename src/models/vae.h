// The variational autoencoder of latent diffusion (Rombach et al., arXiv 2112.10752), in the shape that Stable
// Diffusion and SDXL share: diffusers' AutoencoderKL, whose parameter names these are. It turns pictures into
// latents of an eighth of the side, and back.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "nn/parameter.h"

namespace linnet {

struct VaeConfig {
  int64_t in_channels = 3, out_channels = 3, latent_channels = 4;
  std::vector<int64_t> block_out_channels = {128, 256, 512, 512};  ///< from the picture inwards
  int64_t layers_per_block = 2;                                    ///< one more on the way back
  int64_t norm_num_groups = 32;
  bool use_quant_conv = true, use_post_quant_conv = true;
  bool mid_block_add_attention = true;
  double scaling_factor = 0.18215;  ///< diffusion works on (latents − shift)·scaling
  double shift_factor = 0;

  /// How many pixels a side one latent stands for.
  int64_t reduction() const { return int64_t{1} << (block_out_channels.size() - 1); }
  /// Throws UsageError on a configuration that cannot exist, or one beyond any sensible size.
  void validate() const;
  bool operator==(const VaeConfig&) const = default;
};

/// The object that diffusers keeps as config.json. What it does not mention has diffusers' defaults, and what
/// it mentions but Linnet does not know is ignored unless it changes the result. Throws Error on the rest.
VaeConfig vae_config_from_json(std::string_view text);
std::string to_json(const VaeConfig& config);

/// Floating-point operations of the convolutions and products of one decoded picture, as computed.
double decode_flops(const VaeConfig& config, int64_t latent_height, int64_t latent_width);

/// Of what a picture's latents are drawn: a normal distribution for each, (n, latent channels, h, w) f32, on
/// the CPU.
struct LatentMoments {
  Tensor mean, logvar;
  /// mean + e^(logvar/2)·noise
  Tensor sample(const Tensor& noise) const;
};

class Vae {
 public:
  explicit Vae(const VaeConfig& config);
  Vae(Vae&&) noexcept;
  ~Vae();

  /// pictures (n, in_channels, height, width) f32 in −1..1; reduction() divides height and width. logvar is
  /// clamped to −30..20, and both are on the CPU. Like decode(), it works on the GPU if its weights or its
  /// input lie there.
  LatentMoments encode(const Tensor& pictures) const;
  /// latents (n, latent_channels, h, w) f32, not scaled → pictures (n, out_channels, h·reduction, w·reduction).
  /// Where a picture's activations would take more than `memory` bytes (0: no limit), they are computed in
  /// bands of rows: the result is the same but for rounding, as norms still see the whole picture.
  Tensor decode(const Tensor& latents, size_t memory = 0) const;
  /// About what decode() of one picture takes beside the weights, if nothing limits it.
  size_t decode_memory(int64_t latent_height, int64_t latent_width) const;

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);
  const VaeConfig& config() const { return config_; }
  /// Type of all activations and products: f32, bf16 or, on a GPU, f16.
  void set_product_dtype(DType dtype);
  DType product_dtype() const { return dtype_; }
  /// Called by decode() after each part of the decoder, whose weights are packed from then on.
  void set_on_block(std::function<void()> on_block);

 private:
  struct Encoder;
  struct Decoder;

  VaeConfig config_;
  DType dtype_ = DType::f32;
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace linnet
