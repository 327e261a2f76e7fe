#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/softmax_rows_cpu.cpp"
#include <hwy/foreach_target.h>

#include "ops/softmax-inl.h"
#include "ops/softmax_rows_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

void softmax(float* scores, int64_t rows, int64_t columns, float scale, void* out, DType dtype) {
  with_type(out, dtype, [&](auto* p) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r, scores += columns, p += columns) {
      const float top = largest(scores, columns, scores[0]);
      const float total = sum_lanes(columns, [&](auto d, int64_t i) HWY_ATTR {
        const auto below = hn::Mul(hn::Sub(load(d, scores + i), hn::Set(d, top)), hn::Set(d, scale));
        const auto e = keep_nan(d, below, exp_in_range(d, hn::Max(below, hn::Set(d, -80.0f))));
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
