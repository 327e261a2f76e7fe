// What softmax attentions share: the passes over a row of scores. Included once per instruction set.
#if defined(LINNET_OPS_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LINNET_OPS_SOFTMAX_INL_H_
#undef LINNET_OPS_SOFTMAX_INL_H_
#else
#define LINNET_OPS_SOFTMAX_INL_H_
#endif

#include "ops/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {

HWY_INLINE float largest(const float* x, int64_t n, float start) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto top = hn::Set(d, start);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) top = hn::Max(top, load(d, x + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, top));
  for (; i < n; ++i) result = HWY_MAX(result, x[i]);
  return result;
}

// result, or NaN where `from` is: of which Highway's exponential makes 0, and which a maximum forgets.
template <class D>
HWY_INLINE Vec<D> keep_nan(D, Vec<D> from, Vec<D> result) {
  return hn::IfThenElse(hn::IsNaN(from), from, result);
}

// x = exp(x − offset); returns the sum.
HWY_INLINE float exponentials(float* x, int64_t n, float offset) {
  return sum_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto below = hn::Sub(load(d, x + i), hn::Set(d, offset));
    const auto e = keep_nan(d, below, hn::Exp(d, below));
    store(e, d, x + i);
    return e;
  });
}

}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
