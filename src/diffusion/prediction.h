// What a model predicts of a noisy picture x_t = √ᾱ·x₀ + √(1−ᾱ)·ε, and how one prediction becomes the other.
#pragma once

#include <string_view>

#include "diffusion/schedule.h"

namespace linnet {

enum class Prediction : uint8_t {
  epsilon,  ///< the noise ε: DiT, LiT and PixArt
  v,  ///< √ᾱ·ε − √(1−ᾱ)·x₀ (Salimans & Ho 2022), which weighs a picture's coarse form more
};

std::string_view name_of(Prediction prediction);
/// "epsilon" or "v"; throws UsageError on others.
Prediction prediction_from_name(std::string_view name);

/// The prediction (n, c or more, h, w) with v in its first c channels turned into ε, for x (n, c, h, w) at the
/// timesteps t (n) f32 of the schedule. Further channels stay.
Tensor noise_from_v(const NoiseSchedule& schedule, const Tensor& prediction, const Tensor& x, const Tensor& t);

}  // namespace linnet
