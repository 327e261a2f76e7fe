#include "diffusion/schedule.h"

#include <cmath>

#include "ops/combine.h"

namespace linnet {

NoiseSchedule::NoiseSchedule(std::vector<double> betas) : beta(std::move(betas)) {
  double product = 1.0;
  for (size_t i = 0; i < beta.size(); ++i) {
    const double previous = product;
    product *= 1.0 - beta[i];
    alpha_bar.push_back(product);
    alpha_bar_previous.push_back(previous);
    posterior_variance.push_back(beta[i] * (1.0 - previous) / (1.0 - product));
    posterior_from_x0.push_back(beta[i] * std::sqrt(previous) / (1.0 - product));
    posterior_from_xt.push_back((1.0 - previous) * std::sqrt(1.0 - beta[i]) / (1.0 - product));
    timestep.push_back(static_cast<int>(i));
  }
  for (size_t i = 0; i < beta.size(); ++i) {
    const size_t from = i == 0 && beta.size() > 1 ? 1 : i;
    posterior_log_variance.push_back(std::log(std::max(posterior_variance[from], 1e-20)));
  }
}

NoiseSchedule NoiseSchedule::linear(int steps) {
  const double scale = 1000.0 / steps, first = scale * 1e-4, last = scale * 0.02;
  std::vector<double> betas(static_cast<size_t>(steps));
  for (int i = 0; i < steps; ++i)
    betas[static_cast<size_t>(i)] = steps == 1 ? first : first + (last - first) * i / (steps - 1);
  return NoiseSchedule(std::move(betas));
}

double NoiseSchedule::alpha_bar_at(double given) const {
  const double at = std::clamp(given, 0.0, static_cast<double>(steps() - 1));
  const auto below = static_cast<size_t>(at), above = std::min(below + 1, alpha_bar.size() - 1);
  const double share = at - static_cast<double>(below);
  if (share == 0) return alpha_bar[below];
  return std::exp((1 - share) * std::log(alpha_bar[below]) + share * std::log(alpha_bar[above]));
}

NoiseSchedule NoiseSchedule::spaced(int count) const {
  if (count < 1 || count > steps())
    throw UsageError(fmt::format("the number of steps must lie in 1..{}, not {}", steps(), count));
  // Positions are a running sum rounded to even, as the original's, so that the same steps are chosen.
  // Of one step alone, the original chooses the first, from which nothing can be painted.
  const double stride = count == 1 ? 1.0 : static_cast<double>(steps() - 1) / (count - 1);
  std::vector<int> chosen;
  double position = count == 1 ? steps() - 1 : 0.0;
  for (int i = 0; i < count; ++i, position += stride)
    chosen.push_back(static_cast<int>(std::nearbyint(position)));

  std::vector<double> betas;
  double previous = 1.0;
  for (const int t : chosen) {
    betas.push_back(1.0 - alpha_bar[static_cast<size_t>(t)] / previous);
    previous = alpha_bar[static_cast<size_t>(t)];
  }
  NoiseSchedule result(std::move(betas));
  for (size_t i = 0; i < chosen.size(); ++i) result.timestep[i] = timestep[static_cast<size_t>(chosen[i])];
  return result;
}

Tensor add_noise(const NoiseSchedule& schedule, const Tensor& x0, const Tensor& noise, const Tensor& t) {
  check(x0.shape() == noise.shape() && t.numel() == x0.size(0),
        "pictures {}, noise {} and timesteps {} do not agree", to_string(x0.shape()), to_string(noise.shape()),
        to_string(t.shape()));
  const Tensor steps = t.host();
  std::vector<float> factors;
  for (const int64_t step : steps.values<int64_t>()) {
    const double alpha_bar = schedule.alpha_bar.at(static_cast<size_t>(step));
    factors.push_back(static_cast<float>(std::sqrt(alpha_bar)));
    factors.push_back(static_cast<float>(std::sqrt(1.0 - alpha_bar)));
  }
  return ops::combine_samples(x0, noise, factors);
}

}  // namespace linnet
