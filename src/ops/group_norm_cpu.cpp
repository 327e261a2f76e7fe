#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/group_norm_cpu.cpp"
#include <hwy/foreach_target.h>

#include "ops/group_norm_cpu.h"
#include "ops/simd-inl.h"

#ifndef LINNET_GROUP_NORM_BLOCK
#define LINNET_GROUP_NORM_BLOCK
namespace linnet::ops::cpu {
constexpr int64_t most_channels_at_once = 256, pixels_at_once = 64;  // sums stay in the first-level cache
}
#endif

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

using cpu::most_channels_at_once;
using cpu::pixels_at_once;

// f32 over a few pixels, f64 over all.
template <class T>
HWY_INLINE void add_block(const T* x, const float* pivot, int64_t pixels, int64_t stride, int64_t channels,
                          double* sum, double* squares) {
  HWY_ALIGN float part[2 * most_channels_at_once];
  float *first = part, *second = part + most_channels_at_once;
  for (int64_t c = 0; c < channels; ++c) first[c] = second[c] = 0.0f;
  for (int64_t p = 0; p < pixels; ++p)
    for_lanes(channels, [&](auto d, int64_t i) HWY_ATTR {
      const auto v = hn::Sub(load(d, x + p * stride + i), load(d, pivot + i));
      store(hn::Add(load(d, first + i), v), d, first + i);
      store(hn::MulAdd(v, v, load(d, second + i)), d, second + i);
    });
  for (int64_t c = 0; c < channels; ++c) {
    sum[c] += static_cast<double>(first[c]);
    squares[c] += static_cast<double>(second[c]);
  }
}

void channel_sums(const void* x_, DType dtype, const float* pivot, int64_t pixels, int64_t channels,
                  double* sums) {
  with_type(x_, dtype, [&](auto* x) HWY_ATTR {
    for (int64_t p = 0; p < pixels; p += pixels_at_once)
      for (int64_t c = 0; c < channels; c += most_channels_at_once)
        add_block(x + p * channels + c, pivot + c, HWY_MIN(pixels_at_once, pixels - p), channels,
                  HWY_MIN(most_channels_at_once, channels - c), sums + c, sums + channels + c);
  });
}

void scale_rows(const void* x_, void* y_, DType dtype, const float* gain, const float* shift, bool silu,
                int64_t pixels, int64_t channels) {
  with_type(y_, dtype, [&](auto* y) HWY_ATTR {
    const auto* x = static_cast<decltype(y)>(const_cast<void*>(x_));
    for (int64_t p = 0; p < pixels; ++p, x += channels, y += channels)
      for_lanes(channels, [&](auto d, int64_t i) HWY_ATTR {
        const auto v = hn::MulAdd(load(d, x + i), load(d, gain + i), load(d, shift + i));
        store(silu ? hn::Mul(v, sigmoid(d, v)) : v, d, y + i);
      });
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops::cpu {

HWY_EXPORT(channel_sums);
HWY_EXPORT(scale_rows);

void add_channel_sums(const void* x, DType dtype, const float* pivot, int64_t pixels, int64_t channels,
                      double* sums) {
  HWY_DYNAMIC_DISPATCH(channel_sums)(x, dtype, pivot, pixels, channels, sums);
}

void scale_channels(const void* x, void* y, DType dtype, const float* gain, const float* shift, bool silu,
                    int64_t pixels, int64_t channels) {
  HWY_DYNAMIC_DISPATCH(scale_rows)(x, y, dtype, gain, shift, silu, pixels, channels);
}

}  // namespace linnet::ops::cpu
#endif
