#include "diffusion/samplers.h"

#include <algorithm>
#include <cmath>

#include "ops/combine.h"

namespace linnet {
namespace {

// On the CPU, as what follows from a timestep is computed there.
Tensor times(int64_t n, double timestep) { return Tensor::full({n}, static_cast<float>(timestep)); }

ops::Term term(double factor, const Tensor& x) { return {static_cast<float>(factor), x}; }

// x₀ as the predicted noise implies it: (x − √(1−ᾱ)·ε)/√ᾱ.
Tensor predict_x0(const Tensor& x, const Tensor& prediction, double alpha_bar, bool clipped) {
  const Tensor epsilon = ops::channels(prediction, 0, x.size(1));
  return ops::combine({term(std::sqrt(1.0 / alpha_bar), x), term(-std::sqrt(1.0 / alpha_bar - 1.0), epsilon)},
                      clipped);
}

void report(const SamplingOptions& options, int index, int count, const Tensor& x, const Tensor& x0) {
  if (options.on_step) options.on_step({index, count, x, x0});
}

}  // namespace

Tensor sample_ddpm(const Denoiser& model, Tensor x, const NoiseSchedule& schedule, const NoiseSource& noise,
                   const SamplingOptions& options) {
  const int64_t channels = x.size(1);
  for (int step = schedule.steps() - 1; step >= 0; --step) {
    const auto t = static_cast<size_t>(step);
    const Tensor prediction = model(x, times(x.size(0), schedule.timestep[t]));
    const Tensor x0 = predict_x0(x, prediction, schedule.alpha_bar[t], options.clip_x0);
    const Tensor z = noise(x.shape());
    x = ops::combine({term(schedule.posterior_from_x0[t], x0), term(schedule.posterior_from_xt[t], x)});
    if (step > 0 && prediction.size(1) == 2 * channels)
      x = ops::add_learned_noise(x, ops::channels(prediction, channels, channels), z,
                                 static_cast<float>(schedule.posterior_log_variance[t]),
                                 static_cast<float>(std::log(schedule.beta[t])));
    else if (step > 0)
      x = ops::combine({term(1, x), term(std::sqrt(schedule.beta[t]), z)});
    report(options, schedule.steps() - 1 - step, schedule.steps(), x, x0);
  }
  return x;
}

Tensor sample_ddim(const Denoiser& model, Tensor x, const NoiseSchedule& schedule, float eta,
                   const NoiseSource& noise, const SamplingOptions& options) {
  for (int step = schedule.steps() - 1; step >= 0; --step) {
    const auto t = static_cast<size_t>(step);
    const double alpha_bar = schedule.alpha_bar[t], alpha_bar_next = schedule.alpha_bar_previous[t];
    const Tensor prediction = model(x, times(x.size(0), schedule.timestep[t]));
    const Tensor x0 = predict_x0(x, prediction, alpha_bar, options.clip_x0);
    const double sigma = eta * std::sqrt((1.0 - alpha_bar_next) / (1.0 - alpha_bar)) *
                         std::sqrt(1.0 - alpha_bar / alpha_bar_next);
    const Tensor z = eta > 0 ? noise(x.shape()) : Tensor();
    // The noise is derived from x₀ again, as after clipping it is another one than predicted:
    // ε = (x − √ᾱ·x₀)/√(1−ᾱ).
    const double direction =
        std::sqrt(std::max(0.0, 1.0 - alpha_bar_next - sigma * sigma)) / std::sqrt(1.0 - alpha_bar);
    x = ops::combine({term(std::sqrt(alpha_bar_next) - direction * std::sqrt(alpha_bar), x0),
                      term(direction, x), term(sigma, z)});
    report(options, schedule.steps() - 1 - step, schedule.steps(), x, x0);
  }
  return x;
}

namespace {

// A point in time where DPM-Solver looks at the model.
struct Node {
  double timestep, alpha, sigma, lambda;
};

Node node_at(const NoiseSchedule& full, double timestep) {
  const double alpha_bar = full.alpha_bar_at(timestep), alpha = std::sqrt(alpha_bar),
               sigma = std::sqrt(1.0 - alpha_bar);
  return {timestep, alpha, sigma, std::log(alpha / sigma)};
}

std::vector<Node> rounded_nodes(const NoiseSchedule& full, int steps) {
  const double step = static_cast<double>(full.steps() - 1) / steps;  // as NumPy's linspace rounds it
  std::vector<Node> nodes;
  for (int i = steps; i >= 1; --i) nodes.push_back(node_at(full, std::nearbyint(i * step)));
  return nodes;
}

// One more than steps: the last is where it ends. Time t is timestep N·t − 1.
std::vector<Node> fractional_nodes(const NoiseSchedule& full, int steps) {
  const double last = 1.0 / full.steps();
  std::vector<Node> nodes;
  for (int i = 0; i <= steps; ++i) {
    const double time = 1.0 + (last - 1.0) * i / steps;
    nodes.push_back(
        node_at(full, std::clamp(time * full.steps() - 1.0, 0.0, static_cast<double>(full.steps() - 1))));
  }
  return nodes;
}

// From one node to another, of second order if the picture as predicted at the node before is given.
Tensor dpm_step(const Node* before, const Node& here, const Node& there, const Tensor& x, const Tensor& x0,
                const Tensor& previous_x0) {
  const double h = there.lambda - here.lambda;
  const double grow = -there.alpha * std::expm1(-h);
  const double second_order = before ? 0.5 * h / (here.lambda - before->lambda) : 0.0;
  return ops::combine({term(there.sigma / here.sigma, x), term(grow * (1 + second_order), x0),
                       term(-grow * second_order, before ? previous_x0 : Tensor())});
}

}  // namespace

Tensor sample_dpmpp_2m(const Denoiser& model, Tensor x, const NoiseSchedule& full, int steps,
                       const SamplingOptions& options, TimeGrid grid) {
  if (steps < 1 || steps >= full.steps())
    throw UsageError(fmt::format("DPM-Solver++ takes 1..{} steps, not {}", full.steps() - 1, steps));
  const bool rounded = grid == TimeGrid::rounded;
  const std::vector<Node> nodes = rounded ? rounded_nodes(full, steps) : fractional_nodes(full, steps);
  Tensor previous_x0;
  for (int i = 0; i < steps; ++i) {
    const auto at = static_cast<size_t>(i);
    const Node& here = nodes[at];
    const Tensor prediction = model(x, times(x.size(0), here.timestep));
    const Tensor x0 = predict_x0(x, prediction, here.alpha * here.alpha, options.clip_x0);
    const bool first_order = i == 0 || (i == steps - 1 && steps < 10);
    if (rounded && i == steps - 1)
      x = x0;  // σ = 0 from here: the picture itself
    else
      x = dpm_step(first_order ? nullptr : &nodes[at - 1], here, nodes[at + 1], x, x0, previous_x0);
    previous_x0 = x0;
    report(options, i, steps, x, x0);
  }
  return x;
}

Conditioned conditioned(ConditionalDenoiser model, const Tensor& y, int64_t null_class) {
  const Tensor none = Tensor::from(std::vector<int64_t>(static_cast<size_t>(y.numel()), null_class));
  const auto given = [model = std::move(model)](const Tensor& classes) {
    return [model, classes](const Tensor& x, const Tensor& t) { return model(x, t, classes); };
  };
  return {given(y), given(ops::concat_rows({y, none}))};
}

Denoiser guide(const Conditioned& model, float scale, int64_t guided_channels) {
  if (scale == 1.0f) return model.wanted;
  return [both = model.both, scale, guided_channels](const Tensor& x, const Tensor& t) {
    const Tensor prediction = both(ops::concat_rows({x, x}), ops::concat_rows({t, t}));
    return ops::guided(prediction, scale, std::min(guided_channels, x.size(1)));
  };
}

}  // namespace linnet
