// What every SIMD kernel uses: f32 vectors loaded from and stored to f32 or bf16 memory, and loops over
// channels. Included once per instruction set (Highway's foreach_target); no standard library types inside.
#if defined(LINNET_OPS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LINNET_OPS_SIMD_INL_H_
#undef LINNET_OPS_SIMD_INL_H_
#else
#define LINNET_OPS_SIMD_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
using Vec = hn::Vec<D>;

template <class D>
HWY_INLINE Vec<D> load(D d, const float* p) {
  return hn::LoadU(d, p);
}

template <class D>
HWY_INLINE Vec<D> load(D d, const bfloat16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> d32;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

template <class D>
HWY_INLINE void store(Vec<D> v, D d, float* p) {
  hn::StoreU(v, d, p);
}

// Rounds to nearest, ties to even; NaN becomes the quiet NaN, as in bfloat16(float).
template <class D>
HWY_INLINE void store(Vec<D> v, D, bfloat16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<int32_t, D> ds;
  const hn::Rebind<uint32_t, D> d32;
  const auto u = hn::BitCast(d32, v);
  const auto lowest = hn::And(hn::ShiftRight<16>(u), hn::Set(d32, 1u));
  const auto rounded = hn::Add(u, hn::Add(lowest, hn::Set(d32, 0x7fffu)));
  const auto quiet = hn::Or(u, hn::Set(d32, 0x400000u));
  const auto bits = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), quiet, rounded);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(ds, hn::ShiftRight<16>(bits))), d16, reinterpret_cast<uint16_t*>(p));
}

// body(d, i) for i in 0..n: whole vectors first, then single lanes, so that a kernel's arithmetic is written
// once.
template <class Body>
HWY_INLINE void for_lanes(int64_t n, Body&& body) {
  const hn::ScalableTag<float> full;
  const hn::CappedTag<float, 1> single;
  const auto lanes = static_cast<int64_t>(hn::Lanes(full));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(full, i);
  for (; i < n; ++i) body(single, i);
}

// Sum over i in 0..n of term(d, i), in a fixed order.
template <class Term>
HWY_INLINE float sum_lanes(int64_t n, Term&& term) {
  const hn::ScalableTag<float> full;
  const hn::CappedTag<float, 1> single;
  const auto lanes = static_cast<int64_t>(hn::Lanes(full));
  auto total = hn::Zero(full);
  float rest = 0.0f;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) total = hn::Add(total, term(full, i));
  for (; i < n; ++i) rest += hn::GetLane(term(single, i));
  return hn::GetLane(hn::SumOfLanes(full, total)) + rest;
}

// e^x to a few units in the last place, for |x| < 87: 2^n·e^r with |r| ≤ ln 2/2, e^r by Cephes' polynomial.
template <class D>
HWY_INLINE Vec<D> exp_in_range(D d, Vec<D> x) {
  const hn::Rebind<int32_t, D> di;
  const auto n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504f)));
  const auto r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x));
  auto p = hn::MulAdd(r, hn::Set(d, 1.9875691500e-4f), hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::MulAdd(p, hn::Mul(r, r), hn::Add(r, hn::Set(d, 1.0f)));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::ConvertTo(di, n))));
}

// 1 / (1 + e^-x), to a few units in the last place; flat beyond ±80.
template <class D>
HWY_INLINE Vec<D> sigmoid(D d, Vec<D> x) {
  const auto limit = hn::Set(d, 80.0f);
  const auto within = hn::Max(hn::Min(hn::Neg(x), limit), hn::Neg(limit));
  const auto one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp_in_range(d, within)));
}

// f(pointer) with the pointer's real element type, f32 or bf16.
template <class F>
HWY_INLINE void with_type(const void* p, DType dtype, F&& f) {
  if (dtype == DType::bf16)
    f(static_cast<const bfloat16*>(p));
  else
    f(static_cast<const float*>(p));
}

template <class F>
HWY_INLINE void with_type(void* p, DType dtype, F&& f) {
  if (dtype == DType::bf16)
    f(static_cast<bfloat16*>(p));
  else
    f(static_cast<float*>(p));
}

}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
