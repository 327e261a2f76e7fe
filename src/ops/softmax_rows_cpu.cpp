#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/softmax_rows_cpu.cpp"
#include <hwy/foreach_target.h>

#include "ops/simd-inl.h"
#include "ops/softmax_rows_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

HWY_INLINE float largest(const float* x, int64_t n) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  float result = x[0];
  int64_t i = 0;
  if (n >= lanes) {
    auto top = load(d, x);
    for (i = lanes; i + lanes <= n; i += lanes) top = hn::Max(top, load(d, x + i));
    result = hn::GetLane(hn::MaxOfLanes(d, top));
  }
  for (; i < n; ++i) result = HWY_MAX(result, x[i]);
  return result;
}

void softmax(float* scores, int64_t rows, int64_t columns, float scale, void* out, DType dtype) {
  with_type(out, dtype, [&](auto* p) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r, scores += columns, p += columns) {
      const float top = largest(scores, columns);
      const float total = sum_lanes(columns, [&](auto d, int64_t i) HWY_ATTR {
        const auto below = hn::Mul(hn::Sub(load(d, scores + i), hn::Set(d, top)), hn::Set(d, scale));
        const auto e = exp_in_range(d, hn::Max(below, hn::Set(d, -80.0f)));
        store(e, d, scores + i);
        return e;
      });
      const float share = 1.0f / total;
      for_lanes(columns, [&](auto d, int64_t i)
                             HWY_ATTR { store(hn::Mul(load(d, scores + i), hn::Set(d, share)), d, p + i); });
    }
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops::cpu {

HWY_EXPORT(softmax);

void softmax_rows(float* scores, int64_t rows, int64_t columns, float scale, void* probabilities, DType dtype) {
  HWY_DYNAMIC_DISPATCH(softmax)(scores, rows, columns, scale, probabilities, dtype);
}

}  // namespace linnet::ops::cpu
#endif
