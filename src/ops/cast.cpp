#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cast.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/cast.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

void to_bf16(const float* in, bfloat16* out, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR { store(load(d, in + i), d, out + i); });
}

void to_f32(const bfloat16* in, float* out, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR { store(load(d, in + i), d, out + i); });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops {

HWY_EXPORT(to_bf16);
HWY_EXPORT(to_f32);

namespace {

Tensor convert(const Tensor& x, DType dtype) {
  if (x.on_gpu()) return x.to(dtype).detach();
  constexpr int64_t grain = 1 << 15;
  if (x.dtype() == DType::f32 && dtype == DType::bf16) {
    Tensor y = Tensor::empty(x.shape(), dtype);
    const float* in = x.data<float>();
    bfloat16* out = y.mutable_data<bfloat16>();
    parallel_for(x.numel(), grain, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(to_bf16)(in + begin, out + begin, end - begin);
    });
    return y;
  }
  if (x.dtype() == DType::bf16 && dtype == DType::f32) {
    Tensor y = Tensor::empty(x.shape(), dtype);
    const bfloat16* in = x.data<bfloat16>();
    float* out = y.mutable_data<float>();
    parallel_for(x.numel(), grain, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(to_f32)(in + begin, out + begin, end - begin);
    });
    return y;
  }
  return x.to(dtype).detach();
}

}  // namespace

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tensor y = convert(x, dtype);
  if (wants_grad(x))
    record_backward(y, [slot = x.grad_slot()](const Tensor& gradient) { accumulate_grad(slot, gradient); });
  return y;
}

}  // namespace linnet::ops
#endif
