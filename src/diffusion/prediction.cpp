#include "diffusion/prediction.h"

#include <cmath>

namespace linnet {

std::string_view name_of(Prediction prediction) { return prediction == Prediction::v ? "v" : "epsilon"; }

Prediction prediction_from_name(std::string_view name) {
  for (const Prediction prediction : {Prediction::epsilon, Prediction::v})
    if (name == name_of(prediction)) return prediction;
  throw UsageError(fmt::format("a model predicts \"epsilon\" or \"v\", not \"{}\"", name));
}

Tensor noise_from_v(const NoiseSchedule& schedule, const Tensor& prediction, const Tensor& x, const Tensor& t) {
  Tensor result = prediction.clone();
  const int64_t n = x.size(0), values = x.numel() / n, stride = prediction.numel() / n;
  for (int64_t b = 0; b < n; ++b) {
    const auto step =
        static_cast<size_t>(std::clamp<float>(t.data<float>()[b], 0, static_cast<float>(schedule.steps() - 1)));
    const auto kept = static_cast<float>(std::sqrt(schedule.alpha_bar[step]));
    const auto lost = static_cast<float>(std::sqrt(1.0 - schedule.alpha_bar[step]));
    float* out = result.mutable_data<float>() + b * stride;
    const float* noisy = x.data<float>() + b * values;
    for (int64_t i = 0; i < values; ++i) out[i] = kept * out[i] + lost * noisy[i];
  }
  return result;
}

}  // namespace linnet
