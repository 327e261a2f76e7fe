#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rms_norm.cpp"
#include <hwy/foreach_target.h>

#include <cmath>

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/rms_norm.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

HWY_INLINE float inverse_deviation(const float* x, int64_t d, float epsilon) {
  const float squares =
      sum_lanes(d, [&](auto tag, int64_t i) HWY_ATTR { return hn::Mul(load(tag, x + i), load(tag, x + i)); });
  return 1.0f / std::sqrt(squares / static_cast<float>(d) + epsilon);
}

void rms_forward(const float* x, const float* weight, int64_t rows, int64_t d, float epsilon, void* out,
                 DType dtype) {
  with_type(out, dtype, [&](auto* y) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r, x += d, y += d) {
      const float inverse = inverse_deviation(x, d, epsilon);
      for_lanes(d, [&](auto tag, int64_t i) HWY_ATTR {
        store(hn::Mul(hn::Mul(load(tag, x + i), hn::Set(tag, inverse)), load(tag, weight + i)), tag, y + i);
      });
    }
  });
}

// With n = x·s, s = 1/√(mean x² + ε): dx = s·(w·g − n·mean(w·g·n)); dweight += g·n.
void rms_backward(const float* x, const float* weight, const float* g, int64_t rows, int64_t d, float epsilon,
                  float* dx, float* dweight) {
  for (int64_t r = 0; r < rows; ++r, x += d, g += d, dx += d) {
    const float s = inverse_deviation(x, d, epsilon);
    const float along = sum_lanes(d, [&](auto tag, int64_t i) HWY_ATTR {
      return hn::Mul(hn::Mul(load(tag, g + i), load(tag, weight + i)), load(tag, x + i));
    });
    const float share = along * s * s / static_cast<float>(d);
    for_lanes(d, [&](auto tag, int64_t i) HWY_ATTR {
      const auto v = load(tag, x + i), gradient = load(tag, g + i), scale = hn::Set(tag, s);
      const auto direct = hn::Mul(gradient, load(tag, weight + i));
      store(hn::Mul(hn::NegMulAdd(v, hn::Set(tag, share), direct), scale), tag, dx + i);
      store(hn::MulAdd(gradient, hn::Mul(v, scale), load(tag, dweight + i)), tag, dweight + i);
    });
  }
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops {

HWY_EXPORT(rms_forward);
HWY_EXPORT(rms_backward);

namespace {

Tensor forward(const Tensor& x, const Tensor& weight, float epsilon, DType out_dtype) {
  const int64_t d = weight.numel(), rows = x.numel() / d;
  Tensor y = Tensor::empty(x.shape(), out_dtype, x.device());
  if (x.on_gpu()) {
    gpu_kernels().norm.rms(x.view(), weight.view(), epsilon, y.view(), rows, d);
    return y;
  }
  parallel_for(rows, 4, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rms_forward)
    (x.data<float>() + begin * d, weight.data<float>(), end - begin, d, epsilon, element(y, begin * d),
     out_dtype);
  });
  return y;
}

void backward(const Tensor& x, const Tensor& weight, const Tensor& g, float epsilon, Tensor& dx,
              Tensor& dweight) {
  const int64_t d = weight.numel(), rows = x.numel() / d;
  if (x.on_gpu())
    return gpu_kernels().norm.rms_backward(x.view(), weight.view(), g.view(), epsilon, dx.view(),
                                           dweight.view(), rows, d);
  const Tensor g32 = g.to(DType::f32);
  HWY_DYNAMIC_DISPATCH(rms_backward)
  (x.data<float>(), weight.data<float>(), g32.data<float>(), rows, d, epsilon, dx.mutable_data<float>(),
   dweight.mutable_data<float>());
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, float epsilon, DType out_dtype) {
  check_type("rms_norm", x);
  check_type("rms_norm", out_dtype, x.device());
  check(x.dtype() == DType::f32 && x.shape().rank() >= 1 && weight.defined() &&
            weight.numel() == x.size(x.shape().rank() - 1),
        "rms_norm: a weight of {} values does not go with x of shape {}", weight.defined() ? weight.numel() : 0,
        to_string(x.shape()));
  const Tensor w = weight.to(x.device()).to(DType::f32).detach();
  Tensor y = forward(x, w, epsilon, out_dtype);
  if (wants_grad(x, weight))
    record_backward(
        y, [x = x.detach(), w, x_slot = x.grad_slot(), w_slot = weight.grad_slot(), epsilon](const Tensor& g) {
          Tensor dx = Tensor::empty(x.shape(), DType::f32, x.device());
          Tensor dw = Tensor::zeros({w.numel()}, DType::f32, x.device());
          backward(x, w, g, epsilon, dx, dw);
          accumulate_grad(x_slot, dx);
          accumulate_grad(w_slot, dw);
        });
  return y;
}

}  // namespace linnet::ops
#endif
