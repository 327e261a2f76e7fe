#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/adamw.cpp"
#include <hwy/foreach_target.h>

#include <cmath>

#include "core/parallel.h"
#include "ops/adamw.h"
#include "ops/gpu_kernels.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

// correction1 and correction2: 1 − β₁ᵗ and √(1 − β₂ᵗ).
void update(const AdamWStep& s, float correction1, float correction2, float clip, float* value,
            const float* gradient, float* mean, float* square, float* ema, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = gradient ? hn::Mul(load(d, gradient + i), hn::Set(d, clip)) : hn::Zero(d);
    const auto m0 = load(d, mean + i);
    const auto m = hn::MulAdd(hn::Sub(g, m0), hn::Set(d, 1.0f - s.beta1), m0);
    const auto v = hn::MulAdd(hn::Mul(g, g), hn::Set(d, 1.0f - s.beta2),
                              hn::Mul(load(d, square + i), hn::Set(d, s.beta2)));
    const auto root = hn::Add(hn::Div(hn::Sqrt(v), hn::Set(d, correction2)), hn::Set(d, s.epsilon));
    const auto decayed = hn::Mul(load(d, value + i), hn::Set(d, 1.0f - s.lr * s.weight_decay));
    const auto p = hn::NegMulAdd(hn::Div(m, root), hn::Set(d, s.lr / correction1), decayed);
    const auto average =
        hn::MulAdd(p, hn::Set(d, 1.0f - s.ema_decay), hn::Mul(load(d, ema + i), hn::Set(d, s.ema_decay)));
    store(m, d, mean + i);
    store(v, d, square + i);
    store(p, d, value + i);
    store(average, d, ema + i);
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops {

HWY_EXPORT(update);

namespace {

// 1 − βᵗ: what a mean that began at zero is of the one that it stands for.
float reached(float beta, int64_t step) {
  return 1.0f - static_cast<float>(std::pow(static_cast<double>(beta), static_cast<double>(step)));
}

void step_on_gpu(const AdamWStep& s, const Tensor& clip, const std::vector<Optimized>& parameters) {
  const GpuAdamW settings{s.lr,
                          s.beta1,
                          s.beta2,
                          s.epsilon,
                          s.weight_decay,
                          s.ema_decay,
                          reached(s.beta1, s.step),
                          std::sqrt(reached(s.beta2, s.step))};
  const std::vector<GpuParameter> views = on_gpu(parameters);
  gpu_kernels().optimizer.adamw(settings, clip.view(), views.data(), static_cast<int64_t>(views.size()));
}

void step_on_cpu(const AdamWStep& settings, float clip, Optimized parameter) {
  const float correction1 = reached(settings.beta1, settings.step);
  const float correction2 = std::sqrt(reached(settings.beta2, settings.step));
  const float* g = parameter.gradient.defined() ? parameter.gradient.data<float>() : nullptr;
  float *p = parameter.value.mutable_data<float>(), *m = parameter.mean.mutable_data<float>();
  float *v = parameter.square.mutable_data<float>(), *average = parameter.ema.mutable_data<float>();
  parallel_for(parameter.value.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(update)
    (settings, correction1, correction2, clip, p + begin, g ? g + begin : nullptr, m + begin, v + begin,
     average + begin, end - begin);
  });
}

}  // namespace

void adamw_step(const AdamWStep& settings, const Tensor& clip, const std::vector<Optimized>& parameters) {
  for (const Optimized& parameter : parameters) check_sizes("adamw_step", parameter);
  if (parameters.empty()) return;
  if (clip.on_gpu()) return step_on_gpu(settings, clip, parameters);
  for (const Optimized& parameter : parameters) step_on_cpu(settings, clip.item(), parameter);
}

}  // namespace linnet::ops
#endif
