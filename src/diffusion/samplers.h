// Samplers: each a short free function from noise to picture, knowing nothing of the model it drives. A picture
// is where the model's predictions are, so on the GPU from the first step on; noise may be on the CPU.
#pragma once

#include <functional>

#include "diffusion/schedule.h"

namespace linnet {

/// x (n, c, h, w), t (n) f32 on the CPU → (n, c, h, w) predicted noise or (n, 2c, h, w) noise and variance
/// interpolation.
using Denoiser = std::function<Tensor(const Tensor& x, const Tensor& t)>;
/// Standard normal numbers of a shape.
using NoiseSource = std::function<Tensor(const Shape& shape)>;

struct SamplingStep {
  int index, count;  ///< just finished: index of count, from 0
  const Tensor& x;   ///< where the sample stands now
  const Tensor& x0;  ///< the picture as predicted at this step
};
/// Called after every step; throw from it to cancel.
using StepCallback = std::function<void(const SamplingStep&)>;

struct SamplingOptions {
  bool clip_x0 = false;  ///< keep predicted pictures in −1..1: for pixels, not for latents
  StepCallback on_step = {};
};

/// Ancestral sampling (Ho et al. 2020) over all steps of a (respaced) schedule, with the learned variance where
/// the model has one. noise is drawn at every step, at the last one without being used.
Tensor sample_ddpm(const Denoiser& model, Tensor x, const NoiseSchedule& schedule, const NoiseSource& noise,
                   const SamplingOptions& options = {});

/// DDIM (Song et al. 2020); eta 0 is deterministic and draws no noise.
Tensor sample_ddim(const Denoiser& model, Tensor x, const NoiseSchedule& schedule, float eta,
                   const NoiseSource& noise, const SamplingOptions& options = {});

/// Where DPM-Solver++ looks at the model: two grids are in use.
enum class TimeGrid : uint8_t {
  rounded,     ///< diffusers': whole timesteps, evenly spaced, then σ = 0
  fractional,  ///< that of DPM-Solver's and PixArt's own code: even in time from 1 to 1/1000, where it ends
};

/// DPM-Solver++(2M) (Lu et al. 2022), midpoint form, over `steps` of the full schedule. The first step is of
/// first order, and so is the last: of the rounded grid always, of the fractional one with less than 10 steps.
/// Between timesteps log α is interpolated.
Tensor sample_dpmpp_2m(const Denoiser& model, Tensor x, const NoiseSchedule& full, int steps,
                       const SamplingOptions& options = {}, TimeGrid grid = TimeGrid::rounded);

/// What classifier-free guidance asks a model: `wanted` predicts for the conditions; `both` is given x and t
/// twice, one after the other, and predicts for the conditions and for none. It may be empty where nothing is
/// guided.
struct Conditioned {
  Denoiser wanted, both;
};

/// Predicts for classes y, as a model of (x, t, y).
using ConditionalDenoiser = std::function<Tensor(const Tensor& x, const Tensor& t, const Tensor& y)>;

Conditioned conditioned(ConditionalDenoiser model, const Tensor& y, int64_t null_class);

/// Classifier-free guidance (Ho & Salimans 2022): noise = none + scale·(wanted − none) on the first
/// `guided_channels` channels; the rest and the variance are the wanted condition's own. Scale 1 costs no
/// second pass.
Denoiser guide(const Conditioned& model, float scale, int64_t guided_channels);

}  // namespace linnet
