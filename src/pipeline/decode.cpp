#include "pipeline/decode.h"

#include "core/error.h"
#include "core/memory.h"
#include "io/file.h"
#include "ops/combine.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "store/vae_file.h"

namespace linnet {
namespace {

Tensor unscaled(const Tensor& samples, const VaeConfig& config) {
  const auto factor = static_cast<float>(1 / config.scaling_factor),
             shift = static_cast<float>(config.shift_factor);
  return ops::combine({{factor, samples}, {1, Tensor::full(samples.shape(), shift, samples.device())}});
}

Tensor decode_somehow(const Vae& vae, const Tensor& latents, size_t memory) {
  try {
    return vae.decode(latents, memory).host();
  } catch (const OutOfMemory&) {
    release_cached_memory();
    return vae.decode(latents, 1).host();
  }
}

}  // namespace

Tensor decode_samples(const Vae& vae, const Tensor& samples, size_t memory) {
  const Tensor pictures = decode_somehow(vae, unscaled(samples, vae.config()), memory);
  check(ops::all_finite(pictures),
        "a decoded picture is not finite (NaN or infinite): the autoencoder's weights may be damaged, or the "
        "type of its products too narrow, of which f32 is the widest");
  return pictures;
}

size_t usual_decoding_memory(const Device& device) { return device.is_gpu() ? 0 : size_t{4} << 30; }

std::unique_ptr<Vae> load_decoder(const std::filesystem::path& path, int64_t channels, DType dtype,
                                  const Device& device) {
  std::unique_ptr<Vae> vae = load_vae(path);
  check_decodes(*vae, channels);
  vae->set_product_dtype(dtype == DType::f32 ? DType::f32 : ops::fastest_wide_product_dtype(device));
  nn::move_to(*vae, device);
  vae->set_on_block(&forget_mapped_pages);  // what is packed is not needed in the file
  return vae;
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
