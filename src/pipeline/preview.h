// Pictures of samples that are not finished, at next to no cost: latents become colours by a matrix, as people
// have long approximated Stable Diffusion's autoencoder. The matrix is fitted to the autoencoder at hand.
#pragma once

#include "models/vae.h"

namespace linnet {

class SamplePreview {
 public:
  /// Of a model of pixels, whose samples are pictures.
  SamplePreview() = default;
  /// Of latents that this autoencoder decodes (check_decodes()). It decodes a few small random ones once: of 4
  /// channels as much as a picture of 16 × 32 latents. memory: as decode_samples() takes it; device:
  /// where it lies.
  explicit SamplePreview(const Vae& vae, size_t memory = 0, const Device& device = {});

  /// samples (n, c, h, w) f32 as diffusion has them, on any device → (n, 3, h, w) in about −1..1 on the CPU, of
  /// latents one pixel each.
  Tensor operator()(const Tensor& samples) const;

 private:
  int64_t channels_ = 0;  // of latents; 0: pixels
  std::vector<double>
      matrix_;  // (channels + 1, 3): what each channel adds to red, green and blue, then a constant
};

}  // namespace linnet
