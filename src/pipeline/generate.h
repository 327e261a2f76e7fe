// Class-conditional generation: from classes and seeds to pictures.
#pragma once

#include <functional>

#include "diffusion/samplers.h"
#include "models/dit.h"

namespace linnet {

enum class Sampler : uint8_t { ddpm, ddim, dpmpp };

std::string_view name_of(Sampler sampler);
/// Throws UsageError naming the known samplers.
Sampler sampler_from_name(std::string_view name);

struct GenerateOptions {
  Sampler sampler = Sampler::ddim;
  int steps = 50;
  float guidance_scale = 3.0f;
  int guided_channels = 3;  ///< 3, as the released DiT, or all of the model's
  bool clip_x0 = true;      ///< for pixels; false for latents
  StepCallback on_step = {};
};

/// One sample for each class y[i] from noise and, for DDPM, further noise drawn from its own seed, so that a
/// picture does not depend on what it shares a batch with. start_noise (n, c, h, w) replaces the drawn start
/// when defined. Returns (n, c, h, w).
Tensor generate(const DiT& model, const std::vector<int64_t>& classes, const std::vector<uint64_t>& seeds,
                const GenerateOptions& options, const Tensor& start_noise = {});

}  // namespace linnet
