#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/int8_linear_cpu.cpp"
#include <hwy/foreach_target.h>

#include <limits>

#include "core/parallel.h"
#include "ops/activation-inl.h"
#include "ops/element.h"
#include "ops/int8_linear_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

// Zero lies within the range, so that it is exact; what is not finite makes the scale NaN, and so the whole
// row.
template <class T>
HWY_INLINE cpu::TokenScale scale_of_row(const T* x, int64_t n) {
  const hn::ScalableTag<float> full;
  const hn::CappedTag<float, 1> single;
  const auto lanes = static_cast<int64_t>(hn::Lanes(full));
  auto low = hn::Zero(full), high = low, taint = low;
  float rest_low = 0.0f, rest_high = 0.0f, rest_taint = 0.0f;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = load(full, x + i);
    low = hn::Min(low, v);
    high = hn::Max(high, v);
    taint = hn::MulAdd(v, hn::Zero(full), taint);
  }
  for (; i < n; ++i) {
    const float v = hn::GetLane(load(single, x + i));
    rest_low = HWY_MIN(rest_low, v);
    rest_high = HWY_MAX(rest_high, v);
    rest_taint += v * 0.0f;
  }
  const float lowest = HWY_MIN(rest_low, hn::GetLane(hn::MinOfLanes(full, low)));
  const float highest = HWY_MAX(rest_high, hn::GetLane(hn::MaxOfLanes(full, high)));
  const float tainted = rest_taint + hn::GetLane(hn::SumOfLanes(full, taint));
  // Halves, since the range of finite numbers may be infinite.
  const float scale = (highest * 0.5f - lowest * 0.5f) * (2.0f / 255.0f) + tainted;
  const float zero = scale > 0.0f ? -lowest / scale : 0.0f;
  return {scale, static_cast<int32_t>(zero + 0.5f)};
}

template <class T>
void quantize_rows(const T* x, int64_t rows, int64_t n, uint8_t* q, cpu::TokenScale* scales) {
  for (int64_t r = 0; r < rows; ++r, x += n, q += n) {
    scales[r] = scale_of_row(x, n);
    constexpr float smallest = std::numeric_limits<float>::min();  // below, the inverse is infinite
    const float inverse = scales[r].scale >= smallest ? 1.0f / scales[r].scale : 0.0f;
    const auto zero = static_cast<float>(scales[r].zero);
    for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
      const hn::Rebind<uint8_t, decltype(d)> d8;
      const auto steps = hn::MulAdd(load(d, x + i), hn::Set(d, inverse), hn::Set(d, zero));
      hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(steps)), d8, q + i);  // saturates
    });
  }
}

void quantize_block(const void* x, DType dtype, int64_t rows, int64_t n, uint8_t* q, cpu::TokenScale* scales) {
  with_type(x, dtype, [&](auto* typed) { quantize_rows(typed, rows, n, q, scales); });
}

void scale_block(const int8_t* q, const float* scales, int64_t rows, int64_t n, void* out, DType dtype) {
  with_type(out, dtype, [&](auto* y) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r, q += n, y += n)
      for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
        const hn::Rebind<int8_t, decltype(d)> d8;
        const hn::Rebind<int32_t, decltype(d)> d32;
        const auto value = hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, q + i)));
        store(hn::Mul(value, hn::Set(d, scales[r])), d, y + i);
      });
  });
}

template <class Finish, class T>
HWY_INLINE void write_rows(const cpu::Int8Result& from, int64_t rows, int64_t n, T* out, Finish finish) {
  const int32_t* sums = from.sums;
  for (int64_t r = 0; r < rows; ++r, sums += n, out += n) {
    const cpu::TokenScale token = from.scales[r];
    for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
      const hn::Rebind<int32_t, decltype(d)> di;
      const auto shift = hn::Mul(hn::LoadU(di, from.weight_sums + i), hn::Set(di, token.zero));
      const auto sum = hn::ConvertTo(d, hn::Sub(hn::LoadU(di, sums + i), shift));
      const auto both = hn::Mul(load(d, from.weight_scale + i), hn::Set(d, token.scale));
      const auto bias = from.bias ? load(d, from.bias + i) : hn::Zero(d);
      store(finish(d, hn::MulAdd(sum, both, bias)), d, out + i);
    });
  }
}

void write_block(const cpu::Int8Result& from, int64_t rows, int64_t n, void* out, DType dtype) {
  with_type(out, dtype, [&](auto* typed) {
    if (from.activation == Activation::gelu_tanh)
      write_rows(from, rows, n, typed, [](auto d, auto v) HWY_ATTR { return activate<GeluTanh>(d, v); });
    else
      write_rows(from, rows, n, typed, [](auto, auto v) HWY_ATTR { return v; });
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops::cpu {

HWY_EXPORT(scale_block);
HWY_EXPORT(quantize_block);
HWY_EXPORT(write_block);

void scale_rows(const int8_t* q, const float* scales, int64_t rows, int64_t n, void* out, DType dtype) {
  HWY_DYNAMIC_DISPATCH(scale_block)(q, scales, rows, n, out, dtype);
}

void quantize_tokens(const Tensor& x, int64_t begin, int64_t end, uint8_t* q, TokenScale* scales) {
  const int64_t n = x.shape()[-1];
  parallel_for(end - begin, 8, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(quantize_block)
    (element(x, (begin + first) * n), x.dtype(), last - first, n, q + first * n, scales + first);
  });
}

void write_int8_result(const Int8Result& result, int64_t begin, int64_t end, Tensor& out) {
  const int64_t n = out.shape()[-1];
  parallel_for(end - begin, 8, [&](int64_t first, int64_t last) {
    Int8Result part = result;
    part.sums += first * n;
    part.scales += first;
    HWY_DYNAMIC_DISPATCH(write_block)(part, last - first, n, element(out, (begin + first) * n), out.dtype());
  });
}

}  // namespace linnet::ops::cpu
#endif
