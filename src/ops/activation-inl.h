// SiLU and GELU-tanh as functions of a vector, for every kernel that applies one. Included once per instruction
// set.
#if defined(LINNET_OPS_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LINNET_OPS_ACTIVATION_INL_H_
#undef LINNET_OPS_ACTIVATION_INL_H_
#else
#define LINNET_OPS_ACTIVATION_INL_H_
#endif

#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {

// Both are x·σ(z): SiLU with z = x, GELU-tanh with z = 2√(2/π)(x + 0.044715x³), since ½(1 + tanh u) = σ(2u).
struct Silu {
  template <class D>
  static HWY_INLINE Vec<D> argument(D, Vec<D> x) {
    return x;
  }
  template <class D>
  static HWY_INLINE Vec<D> slope(D d, Vec<D>) {
    return hn::Set(d, 1.0f);
  }
};

struct GeluTanh {
  static constexpr float c = 1.5957691216057308f, cubic = 0.044715f;
  template <class D>
  static HWY_INLINE Vec<D> argument(D d, Vec<D> x) {
    const auto inner = hn::MulAdd(hn::Mul(x, x), hn::Set(d, c * cubic), hn::Set(d, c));
    return hn::Mul(x, inner);
  }
  template <class D>
  static HWY_INLINE Vec<D> slope(D d, Vec<D> x) {
    return hn::MulAdd(hn::Mul(x, x), hn::Set(d, 3.0f * c * cubic), hn::Set(d, c));
  }
};

template <class F, class D>
HWY_INLINE Vec<D> activate(D d, Vec<D> x) {
  return hn::Mul(x, sigmoid(d, F::argument(d, x)));
}

}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
