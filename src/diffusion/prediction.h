// What a model predicts of a noisy picture x_t = √ᾱ·x₀ + √(1−ᾱ)·ε, and how it becomes the noise, which samplers
// take.
#pragma once

#include <string_view>

#include "diffusion/schedule.h"

namespace linnet {

enum class Prediction : uint8_t {
  epsilon,  ///< the noise ε: DiT, LiT and PixArt
  v,   ///< √ᾱ·ε − √(1−ᾱ)·x₀ (Salimans & Ho 2022), which weighs a picture's coarse form more
  x0,  ///< the picture: what suits large patches, whose noise is too much to be carried through (Li & He,
       ///< arXiv 2511.13720)
};

std::string_view name_of(Prediction prediction);
/// "epsilon", "v" or "x0"; throws UsageError on others.
Prediction prediction_from_name(std::string_view name);

/// The prediction (n, c or more, h, w) of that kind with ε in its first c channels, for x (n, c, h, w) at the
/// timesteps t (n) f32 of the schedule, which are best on the CPU. Further channels stay.
Tensor noise_from(Prediction kind, const NoiseSchedule& schedule, const Tensor& prediction, const Tensor& x,
                  const Tensor& t);

}  // namespace linnet
