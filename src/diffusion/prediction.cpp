#include "diffusion/prediction.h"

#include <cmath>

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
  throw UsageError(fmt::format("a model predicts \"epsilon\", \"v\" or \"x0\", not \"{}\"", name));
}

Tensor noise_from(Prediction kind, const NoiseSchedule& schedule, const Tensor& prediction, const Tensor& x,
                  const Tensor& t) {
  if (kind == Prediction::epsilon) return prediction;
  Tensor result = prediction.clone();
  const int64_t n = x.size(0), values = x.numel() / n, stride = prediction.numel() / n;
  for (int64_t b = 0; b < n; ++b) {
    const double kept = schedule.alpha_bar_at(static_cast<double>(t.data<float>()[b]));
    const double alpha = std::sqrt(kept), sigma = std::sqrt(1.0 - kept);
    // ε = α·v + σ·x_t, or (x_t − α·x₀)/σ.
    const bool v = kind == Prediction::v;
    const auto of_prediction = static_cast<float>(v ? alpha : -alpha / sigma);
    const auto of_x = static_cast<float>(v ? sigma : 1.0 / sigma);
    float* out = result.mutable_data<float>() + b * stride;
    const float* noisy = x.data<float>() + b * values;
    for (int64_t i = 0; i < values; ++i) out[i] = of_prediction * out[i] + of_x * noisy[i];
  }
  return result;
}

}  // namespace linnet
