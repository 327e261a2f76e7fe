#include "diffusion/samplers.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace linnet {
namespace {

// The first c channels of a prediction of c or 2c: (n, c, h, w).
Tensor channels_of(const Tensor& prediction, int64_t first, int64_t count) {
  const int64_t n = prediction.size(0), all = prediction.size(1),
                area = prediction.size(2) * prediction.size(3);
  Tensor result = Tensor::empty({n, count, prediction.size(2), prediction.size(3)});
  for (int64_t b = 0; b < n; ++b)
    std::copy_n(prediction.data<float>() + (b * all + first) * area, count * area,
                result.mutable_data<float>() + b * count * area);
  return result;
}

Tensor times(int64_t n, double timestep) { return Tensor::full({n}, static_cast<float>(timestep)); }

float clip(float value, bool wanted) { return wanted ? std::clamp(value, -1.0f, 1.0f) : value; }

// x₀ as the predicted noise implies it: (x − √(1−ᾱ)·ε)/√ᾱ.
Tensor predict_x0(const Tensor& x, const Tensor& epsilon, double alpha_bar, bool clipped) {
  const auto recip = static_cast<float>(std::sqrt(1.0 / alpha_bar));
  const auto recip_m1 = static_cast<float>(std::sqrt(1.0 / alpha_bar - 1.0));
  Tensor x0 = Tensor::empty(x.shape());
  const float *in = x.data<float>(), *e = epsilon.data<float>();
  float* out = x0.mutable_data<float>();
  for (int64_t i = 0; i < x.numel(); ++i) out[i] = clip(recip * in[i] - recip_m1 * e[i], clipped);
  return x0;
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
    const bool learned = prediction.size(1) == 2 * channels;
    const Tensor x0 =
        predict_x0(x, channels_of(prediction, 0, channels), schedule.alpha_bar[t], options.clip_x0);
    const Tensor v = learned ? channels_of(prediction, channels, channels) : Tensor();
    const Tensor z = noise(x.shape());
    const auto from_x0 = static_cast<float>(schedule.posterior_from_x0[t]);
    const auto from_xt = static_cast<float>(schedule.posterior_from_xt[t]);
    const auto low = static_cast<float>(schedule.posterior_log_variance[t]);
    const auto high = static_cast<float>(std::log(schedule.beta[t]));
    // Without a learned variance: β, but β̃ at the first step.
    const auto fixed = static_cast<float>(
        std::log(step == 0 && schedule.steps() > 1 ? schedule.posterior_variance[1] : schedule.beta[t]));
    Tensor next = Tensor::empty(x.shape());
    for (int64_t i = 0; i < x.numel(); ++i) {
      const float f = learned ? 0.5f * (v.data<float>()[i] + 1.0f) : 0.0f;
      const float log_variance = learned ? f * high + (1.0f - f) * low : fixed;
      const float mean = from_x0 * x0.data<float>()[i] + from_xt * x.data<float>()[i];
      const float added = step > 0 ? std::exp(0.5f * log_variance) * z.data<float>()[i] : 0.0f;
      next.mutable_data<float>()[i] = mean + added;
    }
    x = next;
    report(options, schedule.steps() - 1 - step, schedule.steps(), x, x0);
  }
  return x;
}

Tensor sample_ddim(const Denoiser& model, Tensor x, const NoiseSchedule& schedule, float eta,
                   const NoiseSource& noise, const SamplingOptions& options) {
  for (int step = schedule.steps() - 1; step >= 0; --step) {
    const auto t = static_cast<size_t>(step);
    const double kept = schedule.alpha_bar[t], kept_next = schedule.alpha_bar_previous[t];
    const Tensor prediction = model(x, times(x.size(0), schedule.timestep[t]));
    const Tensor x0 = predict_x0(x, channels_of(prediction, 0, x.size(1)), kept, options.clip_x0);
    const double sigma = eta * std::sqrt((1.0 - kept_next) / (1.0 - kept)) * std::sqrt(1.0 - kept / kept_next);
    const Tensor z = eta > 0 ? noise(x.shape()) : Tensor();
    const auto recip = static_cast<float>(std::sqrt(1.0 / kept));
    const auto inverse_recip_m1 = static_cast<float>(1.0 / std::sqrt(1.0 / kept - 1.0));
    const auto keep = static_cast<float>(std::sqrt(kept_next));
    const auto direction = static_cast<float>(std::sqrt(std::max(0.0, 1.0 - kept_next - sigma * sigma)));
    Tensor next = Tensor::empty(x.shape());
    for (int64_t i = 0; i < x.numel(); ++i) {
      // The noise is derived from x₀ again: after clipping it is another one than predicted.
      const float picture = x0.data<float>()[i];
      const float epsilon = (recip * x.data<float>()[i] - picture) * inverse_recip_m1;
      const float added = z.defined() && step > 0 ? static_cast<float>(sigma) * z.data<float>()[i] : 0.0f;
      next.mutable_data<float>()[i] = keep * picture + direction * epsilon + added;
    }
    x = next;
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
  const double kept = full.alpha_bar_at(timestep), alpha = std::sqrt(kept), sigma = std::sqrt(1.0 - kept);
  return {timestep, alpha, sigma, std::log(alpha / sigma)};
}

std::vector<Node> rounded_nodes(const NoiseSchedule& full, int steps) {
  std::vector<Node> nodes;
  for (int i = steps; i >= 1; --i) {
    nodes.push_back(node_at(full, std::nearbyint(static_cast<double>(full.steps() - 1) * i / steps)));
  }
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
  const auto shrink = static_cast<float>(there.sigma / here.sigma);
  const auto grow = static_cast<float>(-there.alpha * std::expm1(-h));
  const auto second_order = static_cast<float>(before ? 0.5 * h / (here.lambda - before->lambda) : 0.0);
  Tensor next = Tensor::empty(x.shape());
  for (int64_t k = 0; k < x.numel(); ++k) {
    const float picture = x0.data<float>()[k];
    const float change = before ? picture - previous_x0.data<float>()[k] : 0.0f;
    next.mutable_data<float>()[k] = shrink * x.data<float>()[k] + grow * (picture + second_order * change);
  }
  return next;
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
    const Tensor x0 =
        predict_x0(x, channels_of(prediction, 0, x.size(1)), here.alpha * here.alpha, options.clip_x0);
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

namespace {

Tensor twice(const Tensor& x) {
  std::vector<int64_t> extents(x.shape().begin(), x.shape().end());
  extents[0] *= 2;
  Tensor result = Tensor::empty(Shape(extents), x.dtype());
  std::memcpy(result.mutable_raw(), x.raw(), x.bytes());
  std::memcpy(static_cast<char*>(result.mutable_raw()) + x.bytes(), x.raw(), x.bytes());
  return result;
}

}  // namespace

Denoiser guide(Denoiser conditional, Denoiser both, float scale, int64_t guided_channels) {
  if (scale == 1.0f) return conditional;
  return [both = std::move(both), scale, guided_channels](const Tensor& x, const Tensor& t) {
    const Tensor prediction = both(twice(x), twice(t));
    const int64_t n = x.size(0);
    Tensor result = prediction.rows(0, n).clone();
    const int64_t all = prediction.size(1), area = prediction.size(2) * prediction.size(3);
    const int64_t channels = std::min(guided_channels, x.size(1));
    const float* none = prediction.data<float>() + n * all * area;
    float* out = result.mutable_data<float>();
    for (int64_t b = 0; b < n; ++b)
      for (int64_t i = b * all * area; i < (b * all + channels) * area; ++i)
        out[i] = none[i] + scale * (out[i] - none[i]);
    return result;
  };
}

Denoiser guide(ConditionalDenoiser model, Tensor y, int64_t null_class, float scale, int64_t guided_channels) {
  Tensor both = twice(y);  // the classes, then as many times no class
  std::fill_n(both.mutable_data<int64_t>() + y.numel(), y.numel(), null_class);
  const auto given = [model = std::move(model)](const Tensor& classes) {
    return [model, classes](const Tensor& x, const Tensor& t) { return model(x, t, classes); };
  };
  return guide(given(y), given(both), scale, guided_channels);
}

}  // namespace linnet
