#include "pipeline/decode.h"

#include "core/error.h"
#include "core/memory.h"

namespace linnet {
namespace {

Tensor unscaled(const Tensor& samples, const VaeConfig& config) {
  Tensor result = Tensor::empty(samples.shape());
  const auto factor = static_cast<float>(1 / config.scaling_factor),
             shift = static_cast<float>(config.shift_factor);
  const float* from = samples.data<float>();
  for (int64_t i = 0; i < samples.numel(); ++i) result.mutable_data<float>()[i] = from[i] * factor + shift;
  return result;
}

Tensor decode_one(const Vae& vae, const Tensor& latents, size_t memory) {
  try {
    return vae.decode(latents, memory);
  } catch (const OutOfMemory&) {
    release_cached_memory();
    return vae.decode(latents, 1);
  }
}

}  // namespace

Tensor decode_samples(const Vae& vae, const Tensor& samples, size_t memory) {
  const Tensor latents = unscaled(samples, vae.config());
  const int64_t n = latents.size(0), step = vae.config().reduction();
  Tensor result = Tensor::empty({n, vae.config().out_channels, latents.size(2) * step, latents.size(3) * step});
  for (int64_t i = 0; i < n; ++i) {
    const Tensor picture = decode_one(vae, latents.rows(i, i + 1), memory);
    std::copy_n(picture.data<float>(), picture.numel(), result.mutable_data<float>() + i * picture.numel());
  }
  return result;
}

void check_decodes(const Vae& vae, int64_t channels) {
  if (vae.config().latent_channels != channels)
    throw UsageError(fmt::format("the autoencoder decodes latents of {} channels, the model's have {}",
                                 vae.config().latent_channels, channels));
  if (vae.config().out_channels != 3)
    throw UsageError(
        fmt::format("the autoencoder makes pictures of {} channels, not of 3", vae.config().out_channels));
}

}  // namespace linnet
