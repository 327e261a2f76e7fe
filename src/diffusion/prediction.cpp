#include "diffusion/prediction.h"

#include <cmath>

#include "core/printable.h"
#include "ops/combine.h"

namespace linnet {

std::string_view name_of(Prediction prediction) {
  switch (prediction) {
    case Prediction::v: return "v";
    case Prediction::x0: return "x0";
    case Prediction::epsilon: break;
  }
  return "epsilon";
}

Prediction prediction_from_name(std::string_view name) {
  for (const Prediction prediction : {Prediction::epsilon, Prediction::v, Prediction::x0})
    if (name == name_of(prediction)) return prediction;
  throw UsageError(fmt::format("a model predicts \"epsilon\", \"v\" or \"x0\", not \"{}\"", printable(name)));
}

Tensor noise_from(Prediction kind, const NoiseSchedule& schedule, const Tensor& prediction, const Tensor& x,
                  const Tensor& t) {
  if (kind == Prediction::epsilon) return prediction;
  const Tensor times = t.host();
  std::vector<float> factors;
  for (const float time : times.values<float>()) {
    const double alpha_bar = schedule.alpha_bar_at(static_cast<double>(time));
    const double alpha = std::sqrt(alpha_bar), sigma = std::sqrt(1.0 - alpha_bar);
    // ε = α·v + σ·x_t, or (x_t − α·x₀)/σ.
    const bool v = kind == Prediction::v;
    factors.push_back(static_cast<float>(v ? alpha : -alpha / sigma));
    factors.push_back(static_cast<float>(v ? sigma : 1.0 / sigma));
  }
  return ops::combine_samples(prediction, x, factors);
}

}  // namespace linnet
