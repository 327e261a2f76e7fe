#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/depthwise_conv_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "ops/depthwise_conv_cpu.h"
#include "ops/element.h"
#include "ops/reduce.h"
#include "ops/simd-inl.h"

#ifndef LINNET_DEPTHWISE_CONV_TASK
#define LINNET_DEPTHWISE_CONV_TASK
namespace linnet::ops::cpu {

// A block of channels of one sample; pointers are at the block's first channel of token 0, strides in elements.
struct ConvTask {
  const void* in;
  DType in_type;
  int64_t in_stride;
  void* out;  // forward: where to add; weight gradient: read as the output's gradient
  DType out_type;
  int64_t out_stride;
  const float* taps;  // (k·k, tap_stride)
  float* dtaps;       // likewise, for the weight's gradient
  int64_t tap_stride;
  const float* bias;  // or null
  int64_t rows, columns, first_row, last_row, channels, kernel;
};

}  // namespace linnet::ops::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

using cpu::ConvTask;

constexpr int64_t run = 4;  // output columns computed together: each loaded value serves up to four of them

// The values under one filter row for `run` neighbouring outputs; zero outside the grid.
template <int K, bool Interior, class D, class T>
HWY_INLINE void load_window(D d, const T* row, int64_t stride, int64_t x, int64_t columns, Vec<D>* window) {
  for (int64_t i = 0; i < run + K - 1; ++i) {
    const int64_t column = x + i - K / 2;
    if (Interior || (column >= 0 && column < columns))
      window[i] = load(d, row + column * stride);
    else
      window[i] = hn::Zero(d);
  }
}

template <int K, bool Interior, class D, class In, class Out>
HWY_INLINE void conv_run(D d, const ConvTask& task, const In* in, Out* out, int64_t y, int64_t x, int64_t c) {
  Vec<D> sums[run];
  for (int64_t i = 0; i < run; ++i) sums[i] = task.bias ? load(d, task.bias + c) : hn::Zero(d);
  for (int64_t ky = 0; ky < K; ++ky) {
    const int64_t row = y + ky - K / 2;
    if (row < 0 || row >= task.rows) continue;
    Vec<D> window[run + K - 1];
    load_window<K, Interior>(d, in + row * task.columns * task.in_stride + c, task.in_stride, x, task.columns,
                             window);
    for (int64_t kx = 0; kx < K; ++kx) {
      const auto tap = load(d, task.taps + (ky * K + kx) * task.tap_stride + c);
      for (int64_t i = 0; i < run; ++i) sums[i] = hn::MulAdd(window[i + kx], tap, sums[i]);
    }
  }
  Out* target = out + (y * task.columns + x) * task.out_stride + c;
  const int64_t count = HWY_MIN(run, task.columns - x);
  for (int64_t i = 0; i < count; ++i, target += task.out_stride)
    store(hn::Add(load(d, static_cast<const Out*>(target)), sums[i]), d, target);
}

template <int K, class In, class Out>
HWY_INLINE void conv_block(const ConvTask& task, const In* in, Out* out) {
  for (int64_t y = task.first_row; y < task.last_row; ++y)
    for (int64_t x = 0; x < task.columns; x += run) {
      const bool interior = x >= K / 2 && x + run + K / 2 <= task.columns;
      for_lanes(task.channels, [&](auto d, int64_t c) HWY_ATTR {
        if (interior)
          conv_run<K, true>(d, task, in, out, y, x, c);
        else
          conv_run<K, false>(d, task, in, out, y, x, c);
      });
    }
}

// dtaps[ky, kx] = Σ over outputs of gradient · the value under that tap.
template <int K, class In, class Out>
HWY_INLINE void taps_block(const ConvTask& task, const In* in, const Out* gradient) {
  for_lanes(task.channels, [&](auto d, int64_t c) HWY_ATTR {
    using D = decltype(d);
    for (int64_t ky = 0; ky < K; ++ky) {
      Vec<D> sums[K];
      for (int64_t kx = 0; kx < K; ++kx) sums[kx] = hn::Zero(d);
      for (int64_t y = task.first_row; y < task.last_row; ++y) {
        const int64_t row = y + ky - K / 2;
        if (row < 0 || row >= task.rows) continue;
        for (int64_t x = 0; x < task.columns; x += run) {
          Vec<D> window[run + K - 1];
          const In* values = in + row * task.columns * task.in_stride + c;
          if (x >= K / 2 && x + run + K / 2 <= task.columns)
            load_window<K, true>(d, values, task.in_stride, x, task.columns, window);
          else
            load_window<K, false>(d, values, task.in_stride, x, task.columns, window);
          const Out* g = gradient + (y * task.columns + x) * task.out_stride + c;
          const int64_t count = HWY_MIN(run, task.columns - x);
          for (int64_t i = 0; i < count; ++i) {
            const auto gi = load(d, g + i * task.out_stride);
            for (int64_t kx = 0; kx < K; ++kx) sums[kx] = hn::MulAdd(window[i + kx], gi, sums[kx]);
          }
        }
      }
      for (int64_t kx = 0; kx < K; ++kx) store(sums[kx], d, task.dtaps + (ky * K + kx) * task.tap_stride + c);
    }
  });
}

template <int K>
void conv_of_size(const ConvTask& task) {
  with_type(task.in, task.in_type, [&](auto* in) HWY_ATTR {
    with_type(task.out, task.out_type, [&](auto* out) HWY_ATTR { conv_block<K>(task, in, out); });
  });
}

template <int K>
void taps_of_size(const ConvTask& task) {
  with_type(task.in, task.in_type, [&](auto* in) HWY_ATTR {
    with_type(static_cast<const void*>(task.out), task.out_type,
              [&](auto* gradient) HWY_ATTR { taps_block<K>(task, in, gradient); });
  });
}

void convolve(const ConvTask& task) {
  switch (task.kernel) {
    case 1: return conv_of_size<1>(task);
    case 3: return conv_of_size<3>(task);
    case 5: return conv_of_size<5>(task);
    default: return conv_of_size<7>(task);
  }
}

void gather_taps(const ConvTask& task) {
  switch (task.kernel) {
    case 1: return taps_of_size<1>(task);
    case 3: return taps_of_size<3>(task);
    case 5: return taps_of_size<5>(task);
    default: return taps_of_size<7>(task);
  }
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops::cpu {

HWY_EXPORT(convolve);
HWY_EXPORT(gather_taps);

namespace {

constexpr int64_t block_channels = 64;  // a block's taps stay in the first-level cache

// (c, 1, k, k) → (k·k, d): tap by tap, repeated for every head; flipped for the gradient of the values.
Tensor spread_taps(const Tensor& weight, int64_t d, bool flipped) {
  const int64_t c = weight.size(0), taps = weight.size(2) * weight.size(3);
  Tensor result = Tensor::empty({taps, d});
  const float* in = weight.data<float>();
  float* out = result.mutable_data<float>();
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int64_t j = 0; j < d; ++j) out[tap * d + j] = in[j % c * taps + (flipped ? taps - 1 - tap : tap)];
  return result;
}

// Calls body(task, sample) for blocks of channels, with in and out at their places.
template <class Body>
void for_blocks(const Tensor& in, int64_t in_channel, Tensor& out, int64_t out_channel, int64_t d,
                TokenGrid grid, int64_t kernel, int64_t strips, Body body) {
  const int64_t tokens = grid.rows * grid.columns, blocks = (d + block_channels - 1) / block_channels;
  const int64_t in_stride = in.size(2), out_stride = out.size(2);
  parallel_for(in.size(0) * strips * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t sample = i / blocks / strips, strip = i / blocks % strips, c = i % blocks * block_channels;
      ConvTask task{};
      task.in = element(in, sample * tokens * in_stride + in_channel + c);
      task.in_type = in.dtype();
      task.in_stride = in_stride;
      task.out = element(out, sample * tokens * out_stride + out_channel + c);
      task.out_type = out.dtype();
      task.out_stride = out_stride;
      task.tap_stride = d;
      task.rows = grid.rows;
      task.columns = grid.columns;
      task.first_row = grid.rows * strip / strips;
      task.last_row = grid.rows * (strip + 1) / strips;
      task.channels = std::min(block_channels, d - c);
      task.kernel = kernel;
      body(task, c, sample);
    }
  });
}

int64_t strips_of(TokenGrid grid) { return std::max<int64_t>(1, grid.rows / 16); }

}  // namespace

void depthwise_conv_add(const Tensor& kv, const Tensor& weight, const Tensor& bias, TokenGrid grid,
                        Tensor& out) {
  const int64_t d = out.size(2), c = weight.size(0);
  const Tensor taps = spread_taps(weight, d, false);
  std::vector<float> wide_bias(static_cast<size_t>(d));
  for (int64_t j = 0; j < d; ++j) wide_bias[static_cast<size_t>(j)] = bias.data<float>()[j % c];
  for_blocks(kv, kv.size(2) - d, out, 0, d, grid, weight.size(2), strips_of(grid),
             [&](ConvTask& task, int64_t channel, int64_t) {
               task.taps = taps.data<float>() + channel;
               task.bias = wide_bias.data() + channel;
               HWY_DYNAMIC_DISPATCH(convolve)(task);
             });
}

void depthwise_conv_backward(const Tensor& g, const Tensor& kv, const Tensor& weight, TokenGrid grid,
                             Tensor& dkv, Tensor& dweight, Tensor& dbias) {
  const int64_t d = g.size(2), c = weight.size(0), k = weight.size(2), taps = k * k, batch = g.size(0);
  const Tensor flipped = spread_taps(weight, d, true);
  for_blocks(g, 0, dkv, dkv.size(2) - d, d, grid, k, strips_of(grid),
             [&](ConvTask& task, int64_t channel, int64_t) {
               task.taps = flipped.data<float>() + channel;
               HWY_DYNAMIC_DISPATCH(convolve)(task);
             });

  Tensor shares = Tensor::empty({batch, taps, d});
  float* share = shares.mutable_data<float>();
  Tensor gradient = g;  // a handle of its own: the task's "out" is read only here
  for_blocks(kv, kv.size(2) - d, gradient, 0, d, grid, k, 1,
             [&](ConvTask& task, int64_t channel, int64_t sample) {
               task.dtaps = share + sample * taps * d + channel;
               HWY_DYNAMIC_DISPATCH(gather_taps)(task);
             });
  const Tensor summed = sum_rows(shares.reshape({batch, taps * d}));
  const Tensor bias_sums = sum_rows(g.reshape({batch * g.size(1), d}));
  std::fill_n(dweight.mutable_data<float>(), dweight.numel(), 0.0f);
  std::fill_n(dbias.mutable_data<float>(), dbias.numel(), 0.0f);
  for (int64_t j = 0; j < d; ++j) {
    dbias.mutable_data<float>()[j % c] += bias_sums.data<float>()[j];
    for (int64_t tap = 0; tap < taps; ++tap)
      dweight.mutable_data<float>()[j % c * taps + tap] += summed.data<float>()[tap * d + j];
  }
}

}  // namespace linnet::ops::cpu
#endif
