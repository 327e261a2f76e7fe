// Depth-wise convolution over the token grid. A thread takes one or two neighbouring channels of 4 rows by 16
// columns of the grid and walks along the columns, with the values under the filter and its taps in registers:
// it reads each value once (those of the rows above and below from a cache), and uses it K² times.
//
// Forward moves two values an element (and K² multiply-adds), backward three (and twice as many).
#include "ops/depthwise_conv_cuda.h"

#include <algorithm>

#include "cuda/cells.h"

namespace linnet::cuda {
namespace {

using ops::ColumnView;

constexpr int strip = 4, run = 16;  // rows and columns of a thread
constexpr int strips = 4;           // of a block, one below the other, each a warp's

template <class T>
struct ConvTask {
  const T *in, *values;  // values: of a backward pass, where `in` is the gradient
  int64_t in_stride, values_stride;
  T* out;
  int64_t out_stride;
  const float *weight, *bias;
  float* shares;  // (parts, K·K + 1, width): what blocks gather of dweight and dbias
  int rows, columns, width, head_size;
  int groups;        // of channels, a warp's each
  int down, across;  // blocks that make up a sample
  int64_t pieces;    // batch·down·across
};

// A thread's place in a piece.
struct Place {
  int64_t token;  // of the sample's first
  int row, column;
};
template <class T>
__device__ __forceinline__ Place place_of(const ConvTask<T>& task, int64_t piece) {
  const int64_t sample = piece / (task.down * task.across);
  const int at = static_cast<int>(piece % (task.down * task.across));
  return {sample * task.rows * task.columns,
          (at / task.across * strips + static_cast<int>(threadIdx.y)) * strip, at % task.across * run};
}

// The taps of a thread's channels, in the reverse order if flipped.
template <int K, int C, class T>
__device__ __forceinline__ void load_taps(const ConvTask<T>& task, int first, bool flipped,
                                          float (&taps)[K * K][C]) {
  constexpr int area = K * K;
  __shared__ float staged[warp_size * C * area];
  for (int i = threadIdx.y * warp_size + threadIdx.x; i < warp_size * C * area; i += warp_size * strips)
    staged[i] = task.weight[static_cast<int64_t>((first + i / area) % task.head_size) * area + i % area];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < area; ++i)
#pragma unroll
    for (int c = 0; c < C; ++c)
      taps[i][c] = staged[(threadIdx.x * C + c) * area + (flipped ? area - 1 - i : i)];
}

// Values of a column of the grid, of a strip's rows and of those that the filter reaches above and below; 0
// beyond the grid.
template <int K, int C, class T>
struct Column {
  Pack<T, C> at[strip + K - 1];
};
template <int K, int C, class T>
__device__ __forceinline__ Column<K, C, T> load_column(const ConvTask<T>& task, const T* in, const Place& place,
                                                       int column, bool wanted) {
  const int first = place.row - K / 2;
  const int64_t row_stride = task.columns * task.in_stride;
  const T* from = in + (place.token + static_cast<int64_t>(first) * task.columns + column) * task.in_stride;
  wanted = wanted && column >= 0 && column < task.columns;
  Column<K, C, T> result{};
#pragma unroll
  for (int r = 0; r < strip + K - 1; ++r)
    if (wanted && first + r >= 0 && first + r < task.rows) result.at[r] = load_pack<C>(from + r * row_stride);
  return result;
}

// A warp's channels, and the part of all pieces that a block works on.
struct Share {
  int first, channel;
  int64_t part, parts;
};
template <int C, class T>
__device__ __forceinline__ Share share_of(const ConvTask<T>& task) {
  const int first = static_cast<int>(blockIdx.x % task.groups) * warp_size * C;
  return {first, first + static_cast<int>(threadIdx.x) * C, blockIdx.x / task.groups, gridDim.x / task.groups};
}

template <int C, class T>
__device__ __forceinline__ void store_channels(T* to, const float (&values)[C]) {
  Pack<T, C> pack;
#pragma unroll
  for (int c = 0; c < C; ++c) assign(pack.at[c], values[c]);
  store_pack(to, pack);
}

// Adds what a column's values give to the results of the columns that they lie under, which are `step` − kx of
// the run, in slot (i − kx) mod K; i is step mod K.
template <int K, int C, class T>
__device__ __forceinline__ void spread_column(const Column<K, C, T>& column, int step, int i,
                                              const float (&taps)[K * K][C], float (&pending)[K][strip][C]) {
  float values[strip + K - 1][C];
#pragma unroll
  for (int r = 0; r < strip + K - 1; ++r)
#pragma unroll
    for (int c = 0; c < C; ++c) values[r][c] = to_float(column.at[r].at[c]);
#pragma unroll
  for (int kx = 0; kx < K; ++kx) {
    if (step < kx || step - kx >= run) continue;
#pragma unroll
    for (int r = 0; r < strip; ++r)
#pragma unroll
      for (int ky = 0; ky < K; ++ky)
#pragma unroll
        for (int c = 0; c < C; ++c) {
          float& sum = pending[(i - kx + K) % K][r][c];
          sum = fmaf(values[r + ky][c], taps[ky * K + kx][c], sum);
        }
  }
}

// Values are read one column ahead, and spread over the K results of each row that are pending.
template <class T, int K, int C>
__global__ void __launch_bounds__(warp_size* strips) conv_forward(ConvTask<T> task) {
  const auto [first, channel, part, parts] = share_of<C>(task);
  float taps[K * K][C], bias[C], pending[K][strip][C];
  load_taps<K, C>(task, first, false, taps);
#pragma unroll
  for (int c = 0; c < C; ++c) bias[c] = task.bias[(channel + c) % task.head_size];
  const auto clear = [&](int slot) {
#pragma unroll
    for (int r = 0; r < strip; ++r)
#pragma unroll
      for (int c = 0; c < C; ++c) pending[slot][r][c] = bias[c];
  };
#pragma unroll
  for (int slot = 0; slot < K; ++slot) clear(slot);
  const bool wanted = channel < task.width;
  const int64_t row_stride = task.columns * task.out_stride;
  for (int64_t piece = part; piece < task.pieces; piece += parts) {
    const Place place = place_of(task, piece);
    const int steps = min(run, task.columns - place.column) + K - 1;
    T* to = task.out + channel +
            (place.token + static_cast<int64_t>(place.row) * task.columns + place.column) * task.out_stride;
    auto next = load_column<K, C>(task, task.in + channel, place, place.column - K / 2, wanted);
    for (int base = 0; base < steps; base += K)
#pragma unroll
      for (int i = 0; i < K; ++i) {
        const int step = base + i, column = place.column + step - K / 2;
        if (step >= steps) break;
        const auto values = next;
        next = load_column<K, C>(task, task.in + channel, place, column + 1, wanted && step + 1 < steps);
        if (column >= 0 && column < task.columns) spread_column<K, C>(values, step, i, taps, pending);
        if (step < K - 1) continue;
#pragma unroll
        for (int r = 0; r < strip; ++r)
          if (wanted && place.row + r < task.rows)
            store_channels<C>(to + r * row_stride, pending[(i + 1) % K][r]);
        to += task.out_stride;
        clear((i + 1) % K);
      }
  }
}

// visit(window, first, column) for each column of a run, whose values under the filter's column kx are in slot
// (first + kx) mod K of the window.
template <int K, class T, class Visit>
__device__ __forceinline__ void walk(const ConvTask<T>& task, const T* in, const Place& place, bool wanted,
                                     Visit visit) {
  float window[K][strip + K - 1];
  const int steps = min(run, task.columns - place.column) + K - 1;
  for (int base = 0; base < steps; base += K)
#pragma unroll
    for (int i = 0; i < K; ++i) {
      const int step = base + i, column = place.column + step - (K - 1);
      if (step >= steps) break;
      const auto values = load_column<K, 1>(task, in, place, column + K / 2, wanted);
#pragma unroll
      for (int r = 0; r < strip + K - 1; ++r) window[i][r] = to_float(values.at[r].at[0]);
      if (step >= K - 1) visit(window, (i + 1) % K, column);
    }
}

// The sum of the values under the filter of a strip's row, times its taps.
template <int K>
__device__ __forceinline__ float convolve(const float (&window)[K][strip + K - 1], int first, int row,
                                          const float (&taps)[K * K][1]) {
  float sum = 0;
#pragma unroll
  for (int ky = 0; ky < K; ++ky)
#pragma unroll
    for (int kx = 0; kx < K; ++kx) sum = fmaf(window[(first + kx) % K][row + ky], taps[ky * K + kx][0], sum);
  return sum;
}

// dtaps += the values under the filter, times the value of the strip's row that they belong to
template <int K>
__device__ __forceinline__ void gather_taps(const float (&window)[K][strip + K - 1], int first, int row,
                                            float value, float (&dtaps)[K * K]) {
#pragma unroll
  for (int ky = 0; ky < K; ++ky)
#pragma unroll
    for (int kx = 0; kx < K; ++kx)
      dtaps[ky * K + kx] = fmaf(window[(first + kx) % K][row + ky], value, dtaps[ky * K + kx]);
}

// Adds what the block's warps gathered, in order, and writes it as the block's share. dtaps are in reverse
// order.
template <int K, class T>
__device__ __forceinline__ void store_shares(const ConvTask<T>& task, const Share& share,
                                             const float (&dtaps)[K * K], float dbias) {
  constexpr int area = K * K;
  __shared__ float gathered[strips][area + 1][warp_size];
#pragma unroll
  for (int i = 0; i < area; ++i) gathered[threadIdx.y][area - 1 - i][threadIdx.x] = dtaps[i];
  gathered[threadIdx.y][area][threadIdx.x] = dbias;
  __syncthreads();
  if (share.channel >= task.width) return;
  for (int i = threadIdx.y; i <= area; i += strips) {
    float sum = 0;
    for (int y = 0; y < strips; ++y) sum += gathered[y][i][threadIdx.x];
    task.shares[(share.part * (area + 1) + i) * task.width + share.channel] = sum;
  }
}

// The gradient of a value is the convolution of the result's gradient by the filter in reverse; a tap's is the
// sum of those gradients' products with the value in the middle, so that both come of one window.
template <class T, int K>
__global__ void __launch_bounds__(warp_size* strips) conv_backward(ConvTask<T> task) {
  const Share share = share_of<1>(task);
  float taps[K * K][1], dtaps[K * K] = {}, dbias = 0;
  load_taps<K, 1>(task, share.first, true, taps);
  const bool wanted = share.channel < task.width;
  for (int64_t piece = share.part; piece < task.pieces; piece += share.parts) {
    const Place place = place_of(task, piece);
    const int64_t first = place.token + static_cast<int64_t>(place.row) * task.columns;
    walk<K>(task, task.in + share.channel, place, wanted, [&](const auto& window, int slot, int column) {
      const T* values = task.values + share.channel + (first + column) * task.values_stride;
      T* out = task.out + share.channel + (first + column) * task.out_stride;
#pragma unroll
      for (int r = 0; r < strip; ++r) {
        const bool inside = wanted && place.row + r < task.rows;
        const float value = inside ? to_float(values[r * task.columns * task.values_stride]) : 0.0f;
        const float sum = convolve<K>(window, slot, r, taps);
        gather_taps<K>(window, slot, r, value, dtaps);
        dbias += window[(slot + K / 2) % K][r + K / 2];
        if (inside) assign(out[r * task.columns * task.out_stride], sum);
      }
    });
  }
  store_shares<K>(task, share, dtaps, dbias);
}

// A block of 32×8 threads adds the shares of 32 (tap, channel of a head) over parts and heads, in a fixed
// order.
__global__ void add_shares(const float* shares, int64_t parts, int width, int head_size, int area,
                           float* dweight, float* dbias) {
  __shared__ float sums[8][warp_size];
  const int i = static_cast<int>(blockIdx.x) * warp_size + static_cast<int>(threadIdx.x);
  const int tap = i / head_size, channel = i % head_size;
  float sum = 0;
  if (tap <= area)
    for (int64_t part = threadIdx.y; part < parts; part += 8)
      for (int at = channel; at < width; at += head_size) sum += shares[(part * (area + 1) + tap) * width + at];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || tap > area) return;
  for (int y = 1; y < 8; ++y) sum += sums[y][threadIdx.x];
  (tap < area ? dweight[channel * area + tap] : dbias[channel]) = sum;
}

template <class Body>
void with_kernel(int64_t kernel, Body&& body) {
  switch (kernel) {
    case 1: return body(std::integral_constant<int, 1>());
    case 3: return body(std::integral_constant<int, 3>());
    case 5: return body(std::integral_constant<int, 5>());
    default: return body(std::integral_constant<int, 7>());
  }
}

template <class T>
T* first_of(const ColumnView& columns) {
  return columns.view.as<T>() + columns.first;
}

template <class T>
ConvTask<T> task_of(const DepthwiseConv& conv, const ColumnView& in, const ColumnView& out, View weight,
                    int channels) {
  ConvTask<T> task{};
  task.in = first_of<T>(in);
  task.in_stride = in.stride;
  task.out = first_of<T>(out);
  task.out_stride = out.stride;
  task.weight = weight.as<float>();
  task.rows = static_cast<int>(conv.rows);
  task.columns = static_cast<int>(conv.columns);
  task.width = static_cast<int>(conv.width);
  task.head_size = static_cast<int>(conv.head_size);
  task.groups = static_cast<int>(divide_up(conv.width, warp_size * channels));
  task.down = static_cast<int>(divide_up(conv.rows, strip * strips));
  task.across = static_cast<int>(divide_up(conv.columns, run));
  task.pieces = conv.batch * task.down * task.across;
  return task;
}

// How many blocks share the pieces of each group of channels: enough to fill the card, and no more, so that
// taps are seldom read.
template <class T>
int64_t parts_of(const ConvTask<T>& task) {
  return std::clamp<int64_t>(divide_up(int64_t{6} * multiprocessors(), task.groups), 1, task.pieces);
}

template <class T, int K, int C>
void launch_forward(const DepthwiseConv& conv, const ColumnView& values, View weight, View bias,
                    const ColumnView& out) {
  ConvTask<T> task = task_of<T>(conv, values, out, weight, C);
  task.bias = bias.as<float>();
  launch(conv_forward<T, K, C>, dim3(static_cast<unsigned>(task.groups * parts_of(task))),
         dim3(warp_size, strips), 0, task);
}

template <class T, int K>
void launch_backward(const DepthwiseConv& conv, const ColumnView& values, const ColumnView& g, View weight,
                     const ColumnView& dvalues, View dweight, View dbias) {
  ConvTask<T> task = task_of<T>(conv, g, dvalues, weight, 1);
  task.values = first_of<T>(values);
  task.values_stride = values.stride;
  const int64_t parts = parts_of(task), sums = (K * K + 1) * conv.head_size;
  const Scratch shares(static_cast<size_t>(parts * (K * K + 1) * conv.width) * sizeof(float));
  task.shares = shares.as<float>();
  launch(conv_backward<T, K>, dim3(static_cast<unsigned>(task.groups * parts)), dim3(warp_size, strips), 0,
         task);
  launch(add_shares, dim3(static_cast<unsigned>(divide_up(sums, warp_size))), dim3(warp_size, 8), 0,
         task.shares, parts, task.width, task.head_size, K * K, dweight.as<float>(), dbias.as<float>());
}

}  // namespace

void depthwise_conv(const DepthwiseConv& conv, const ColumnView& values, View weight, View bias,
                    const ColumnView& out) {
  const bool pairs = (conv.head_size | values.first | values.stride | out.first | out.stride) % 2 == 0;
  with_float(conv.dtype, [&](auto* type) {
    with_kernel(conv.kernel, [&](auto kernel) {
      using T = Pointee<decltype(type)>;
      constexpr int k = decltype(kernel)::value;
      // Of two channels, 7×7 taps and what is under them would not fit registers.
      if (k < 7 && pairs)
        launch_forward < T, k, k<7 ? 2 : 1>(conv, values, weight, bias, out);
      else
        launch_forward<T, k, 1>(conv, values, weight, bias, out);
    });
  });
}

void depthwise_conv_backward(const DepthwiseConv& conv, const ColumnView& values, const ColumnView& g,
                             View weight, const ColumnView& dvalues, View dweight, View dbias) {
  with_float(conv.dtype, [&](auto* type) {
    with_kernel(conv.kernel, [&](auto kernel) {
      launch_backward<Pointee<decltype(type)>, decltype(kernel)::value>(conv, values, g, weight, dvalues,
                                                                        dweight, dbias);
    });
  });
}

}  // namespace linnet::cuda
