// From a latent diffusion model's samples to pictures.
#pragma once

#include <filesystem>
#include <memory>

#include "models/vae.h"

namespace linnet {

/// samples (n, latent channels, h, w), as diffusion left them, where the autoencoder lies → (n, 3, height,
/// width) in about −1..1, on the CPU. memory: as Vae::decode takes it; when the system has none left, it is
/// tried once more with as little as can be. Throws Error when a picture is not finite.
Tensor decode_samples(const Vae& vae, const Tensor& samples, size_t memory);

/// What decode_samples() may take unless told otherwise: 4 GiB, and 0, no limit, on a GPU, which is tried as a
/// whole before it is decoded in bands.
size_t usual_decoding_memory(const Device& device);

/// Loaded to that device, checked to decode so many channels, its products in bf16 where that is faster, unless
/// dtype is f32.
std::unique_ptr<Vae> load_decoder(const std::filesystem::path& path, int64_t channels, DType dtype,
                                  const Device& device = {});

/// Throws UsageError unless the autoencoder makes pictures of samples with so many channels.
void check_decodes(const Vae& vae, int64_t channels);

}  // namespace linnet
