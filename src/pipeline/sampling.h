// What painting from classes and from texts share: which sampler, and noise that is each picture's own.
#pragma once

#include <limits>
#include <string_view>

#include "diffusion/prediction.h"
#include "diffusion/samplers.h"

namespace linnet {

enum class Sampler : uint8_t { ddpm, ddim, dpmpp };

std::string_view name_of(Sampler sampler);
/// Throws UsageError naming the known samplers.
Sampler sampler_from_name(std::string_view name);

/// Of guidance, whatever the model: as many as it has.
constexpr int all_channels = std::numeric_limits<int>::max();

/// Timesteps of 0..999, both ends among them.
struct TimeInterval {
  float from = 0, to = 999;

  bool holds(float timestep) const { return timestep >= from && timestep <= to; }
};

struct GenerateOptions {
  Sampler sampler = Sampler::ddim;
  int steps = 50;
  float guidance_scale = 3.0f;
  TimeInterval guided = {};           ///< when there is guidance
  int guided_channels = 3;            ///< 3, as the released DiT, or all_channels
  bool clip_x0 = true;                ///< for pixels; false for latents
  TimeGrid grid = TimeGrid::rounded;  ///< of dpm++
  Device device = {};                 ///< where the model lies
  StepCallback on_step = {};
};

/// Throws UsageError on what no model can do: steps outside the sampler's range, a scale that is no number,
/// guidance at no time.
void check_options(const GenerateOptions& options);

/// One sample of shape (c, h, w) for each seed, from noise and, for DDPM, further noise drawn from that seed
/// alone, so that a picture does not depend on what it shares a batch with. start_noise (n, c, h, w) replaces
/// the drawn start when defined. Returns (n, c, h, w) on the options' device, as callbacks get it there. model
/// predicts `kind`; it is guided by the options' scale in their interval of time, and outside of it only asked
/// for what is wanted (Kynkäänniemi et al. 2024). Throws Error when a sample is not finite.
Tensor sample(const Conditioned& model, Prediction kind, const Shape& each, const std::vector<uint64_t>& seeds,
              const GenerateOptions& options, const Tensor& start_noise = {});

}  // namespace linnet
