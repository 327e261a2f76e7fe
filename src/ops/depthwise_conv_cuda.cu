// Depth-wise convolution over the token grid. A block takes a tile, which is a run of columns and rows of the
// grid by one or two channels a lane, and walks down its rows: copies of the next few rows to shared memory run
// beside the work on these. A thread has 4 neighbouring columns, with the taps of its channels in registers,
// and the K rows of results that a row of values lies under: it reads 4 + K − 1 values a channel for 4·K²
// multiply-adds, and none of these checks bounds, since there are zeros beyond the grid.
//
// (Of 5×5 filters and 16-bit types, wide grids go another way: depthwise_conv_patches_cuda.cu.)
//
// Forward moves two values an element (and K² multiply-adds, which take longer for K ≥ 5), backward four (and
// twice as many multiply-adds): the gradient of values is a convolution, too, and that of taps reads g again,
// since the registers for both at once would leave too few warps.
#include "ops/depthwise_conv_cuda.h"

#include <algorithm>
#include <initializer_list>

#include "ops/depthwise_conv_tiles_cuda.cuh"

namespace linnet::cuda {
namespace {

using namespace depthwise;

using ops::ColumnView;

// Adds what a row's values give to the results of the rows that they lie under, which are in slot (i − ky) mod
// K. The first of them begin here.
template <class L>
__device__ __forceinline__ void spread_row(const float (&values)[strip + L::K - 1][L::C], int i,
                                           const float (&taps)[L::area][L::C], const float (&bias)[L::C],
                                           float (&pending)[L::K][strip][L::C]) {
#pragma unroll
  for (int ky = 0; ky < L::K; ++ky)
#pragma unroll
    for (int kx = 0; kx < L::K; ++kx)
#pragma unroll
      for (int s = 0; s < strip; ++s)
#pragma unroll
        for (int c = 0; c < L::C; ++c) {
          float& sum = pending[(i - ky + L::K) % L::K][s][c];
          sum = fmaf(values[s + kx][c], taps[ky * L::K + kx][c], ky + kx == 0 ? bias[c] : sum);
        }
}

// Where a thread writes a row of results, and how many columns and channels of it are of the grid.
template <class T>
struct Target {
  T* to;
  unsigned stride;
  int columns, channels;
};
template <class L, class T>
__device__ __forceinline__ Target<T> target_of(const ConvTask<T>& task, const Place& place) {
  const int column = place.column + static_cast<int>(threadIdx.y) * strip;
  const int channel = place.channel + static_cast<int>(threadIdx.x) * L::C;
  const int64_t token = place.token + static_cast<int64_t>(place.top) * task.columns + column;
  return {task.out + token * task.out_stride + channel, task.out_stride,
          channel < task.width ? task.columns - column : 0, task.width - channel};
}

template <class L, class T>
__device__ __forceinline__ void write_row(const Target<T>& target, const float (&values)[strip][L::C]) {
#pragma unroll
  for (unsigned s = 0; s < strip; ++s) {
    if (static_cast<int>(s) >= target.columns) continue;
    T* to = target.to + uint64_t{target.stride} * s;
    if constexpr (L::packed && L::C == 2)
      *static_cast<unsigned*>(static_cast<void*>(to)) = pack<T>(values[s][0], values[s][1]);
    else
#pragma unroll
      for (int c = 0; c < L::C; ++c)
        if (c < target.channels) assign(to[c], values[s][c]);
  }
}

template <class T, int K, bool Packed>
__global__ void __launch_bounds__(Tile<T, K, Packed>::threads, Tile<T, K, Packed>::blocks)
    convolve(ConvTask<T> task) {
  using L = Tile<T, K, Packed>;
  LINNET_DYNAMIC_SHARED(memory);  // two chunks; taps
  T* const chunks = static_cast<T*>(static_cast<void*>(memory));
  const int group = static_cast<int>(blockIdx.x) % task.groups,
            part = static_cast<int>(blockIdx.x) / task.groups;
  const int parts = static_cast<int>(gridDim.x) / task.groups;
  const int column_of_tile = static_cast<int>(threadIdx.y) * strip;
  float taps[L::area][L::C], bias[L::C], pending[K][strip][L::C];
  load_taps<L>(task, group * L::channels,
               static_cast<float*>(static_cast<void*>(chunks + 2 * L::covered_chunk)), taps);
#pragma unroll
  for (int c = 0; c < L::C; ++c)
    bias[c] = task.bias ? task.bias[(group * L::channels + threadIdx.x * L::C + c) % task.head_size] : 0.0f;

  for (int piece = part; piece < task.pieces; piece += parts) {
    const Place place = place_of<L>(task, group, piece);
    Target<T> target = target_of<L>(task, place);
    const unsigned end = place.column + column_of_tile < task.columns ? task.rows : 0;  // of rows that matter
#pragma unroll
    for (int slot = 0; slot < K; ++slot)
#pragma unroll
      for (int s = 0; s < strip; ++s)
#pragma unroll
        for (int c = 0; c < L::C; ++c) pending[slot][s][c] = bias[c];
    const auto fetch_values = [&](int row, int half) {
      fetch<L, L::covered>(chunks + half * L::covered_chunk, task, task.values, place, place.column - K / 2,
                           row, 0, task.rows);
      commit_copies();
    };
    const int first = place.top - K / 2, last = place.bottom + K / 2;
    fetch_values(first, 0);
    for (int row = first, half = 0; row < last; row += L::chunk, half ^= 1) {
      wait_for_copies<0>();
      __syncthreads();  // all have these rows, and have done with those before them
      if (row + L::chunk < last) fetch_values(row + L::chunk, half ^ 1);
      const T* from = chunks + half * L::covered_chunk + column_of_tile * L::channels + threadIdx.x * L::C;
#pragma unroll
      for (int i = 0; i < L::chunk; ++i) {
        if (static_cast<unsigned>(row + i) < end) {
          float values[strip + K - 1][L::C];
          read_row<L>(from + i * L::covered * L::channels, values);
          spread_row<L>(values, i, taps, bias, pending);
        }
        if (row + i - K / 2 < place.top || row + i >= last) continue;
        write_row<L>(target, pending[(i + 1) % K]);
        target.to += task.out_row_stride;
      }
    }
    __syncthreads();  // before the next tile's copies
  }
}

// dtaps += a row's values times the gradients of the results that they lie under, which are in slot (i − ky)
// mod K
template <class L>
__device__ __forceinline__ void gather_row(const float (&values)[strip + L::K - 1][L::C], int i,
                                           const float (&g)[L::K][strip][L::C], float (&dtaps)[L::area][L::C]) {
#pragma unroll
  for (int s = 0; s < strip; ++s)
#pragma unroll
    for (int ky = 0; ky < L::K; ++ky)
#pragma unroll
      for (int kx = 0; kx < L::K; ++kx)
#pragma unroll
        for (int c = 0; c < L::C; ++c) {
          float& sum = dtaps[ky * L::K + kx][c];
          sum = fmaf(values[s + kx][c], g[(i - ky + L::K) % L::K][s][c], sum);
        }
}

// Adds what the block's warps gathered, in order, and writes it as the block's share.
template <class L, class T>
__device__ __forceinline__ void store_shares(const ConvTask<T>& task, float* gathered, int first, int part,
                                             const float (&dtaps)[L::area][L::C], const float (&dbias)[L::C]) {
  constexpr int sums = (L::area + 1) * L::channels;
#pragma unroll
  for (int i = 0; i <= L::area; ++i)
#pragma unroll
    for (int c = 0; c < L::C; ++c)
      gathered[threadIdx.y * sums + i * L::channels + threadIdx.x * L::C + c] =
          i < L::area ? dtaps[i < L::area ? i : 0][c] : dbias[c];
  __syncthreads();
  for (int i = thread_of_block<L>(); i < sums; i += L::threads) {
    const int tap = i / L::channels, channel = first + i % L::channels;
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < L::warps; ++warp) sum += gathered[warp * sums + i];
    if (channel < task.width)
      task.shares[(static_cast<int64_t>(part) * (L::area + 1) + tap) * task.width + channel] = sum;
  }
}

template <class T, int K, bool Packed>
__global__ void __launch_bounds__(Tile<T, K, Packed>::threads, Tile<T, K, Packed>::blocks)
    gather_taps(ConvTask<T> task) {
  using L = Tile<T, K, Packed>;
  LINNET_DYNAMIC_SHARED(memory);  // two chunks of values and of g; in the end, sums
  T* const chunks = static_cast<T*>(static_cast<void*>(memory));
  const int group = static_cast<int>(blockIdx.x) % task.groups,
            part = static_cast<int>(blockIdx.x) / task.groups;
  const int parts = static_cast<int>(gridDim.x) / task.groups;
  const int column_of_tile = static_cast<int>(threadIdx.y) * strip;
  float dtaps[L::area][L::C] = {}, dbias[L::C] = {};

  for (int piece = part; piece < task.pieces; piece += parts) {
    const Place place = place_of<L>(task, group, piece);
    const unsigned end = place.column + column_of_tile < task.columns ? task.rows : 0;  // of rows that matter
    float g[K][strip][L::C] = {};
    const auto fetch_both = [&](int row, int half) {
      T* to = chunks + half * (L::covered_chunk + L::chunk_size);
      fetch<L, L::covered>(to, task, task.values, place, place.column - K / 2, row, 0, task.rows);
      fetch<L, L::columns>(to + L::covered_chunk, task, task.g, place, place.column, row + K / 2, place.top,
                           place.bottom);
      commit_copies();
    };
    const int first = place.top - K / 2, last = place.bottom + K / 2;
    fetch_both(first, 0);
    for (int row = first, half = 0; row < last; row += L::chunk, half ^= 1) {
      wait_for_copies<0>();
      __syncthreads();  // all have these rows, and have done with those before them
      if (row + L::chunk < last) fetch_both(row + L::chunk, half ^ 1);
      const T* from = chunks + half * (L::covered_chunk + L::chunk_size) + column_of_tile * L::channels +
                      threadIdx.x * L::C;
#pragma unroll
      for (int i = 0; i < L::chunk; ++i) {
        auto& newest = g[i % K];
        read_row<L>(from + L::covered_chunk + i * L::columns * L::channels, newest);
#pragma unroll
        for (int s = 0; s < strip; ++s)
#pragma unroll
          for (int c = 0; c < L::C; ++c) dbias[c] += newest[s][c];
        if (static_cast<unsigned>(row + i) >= end) continue;
        float values[strip + K - 1][L::C];
        read_row<L>(from + i * L::covered * L::channels, values);
        gather_row<L>(values, i, g, dtaps);
      }
    }
    __syncthreads();  // before the next tile's copies
  }
  store_shares<L>(task, static_cast<float*>(static_cast<void*>(memory)), group * L::channels, part, dtaps,
                  dbias);
}

// A block of 32×16 threads adds the shares of 32 (tap, channel of a head) over parts and heads, in a fixed
// order.
constexpr int adders = 16;
__global__ void add_shares(const float* shares, int parts, int width, int head_size, int area, float* dweight,
                           float* dbias) {
  __shared__ float sums[adders][warp_size];
  const int i = static_cast<int>(blockIdx.x) * warp_size + static_cast<int>(threadIdx.x);
  const int tap = i / head_size, channel = i % head_size;
  float sum = 0;
  if (tap <= area)
    for (int part = static_cast<int>(threadIdx.y); part < parts; part += adders) {
      const float* from = shares + (static_cast<int64_t>(part) * (area + 1) + tap) * width;
#pragma unroll 4
      for (int at = channel; at < width; at += head_size) sum += from[at];
    }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || tap > area) return;
  for (int y = 1; y < adders; ++y) sum += sums[y][threadIdx.x];
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

// Whether channels of any token can be copied 16 bytes at once.
template <class T>
bool is_packed(const ColumnView& columns, int64_t width) {
  constexpr int64_t n = 16 / sizeof(T);
  return width % n == 0 && columns.stride % n == 0 && is_aligned(first_of<T>(columns), 16);
}

// Into how many parts to cut the rows of samples, that make so many blocks uncut: so that the fullest
// multiprocessor has the least rows to walk down. Each part reads K − 1 rows more, and takes a while to begin.
int64_t cuts_of(int64_t rows, int64_t blocks, int64_t kernel) {
  int64_t best = 1, least = INT64_MAX;
  for (int64_t cuts = 1; cuts <= divide_up(rows, 8); ++cuts) {
    const int64_t walked = divide_up(blocks * cuts, multiprocessors()) * (divide_up(rows, cuts) + kernel + 2);
    if (walked < least) best = cuts, least = walked;
  }
  return best;
}

template <class T, int K, bool Packed>
ConvTask<T> task_of(const DepthwiseConv& conv) {
  using L = Tile<T, K, Packed>;
  ConvTask<T> task = uncut_task<L, T>(conv);
  task.height =
      static_cast<int>(divide_up(conv.rows, cuts_of(conv.rows, conv.batch * task.across * task.groups, K)));
  task.down = static_cast<int>(divide_up(conv.rows, task.height));
  task.pieces = static_cast<int>(conv.batch) * task.down * task.across;
  return task;
}

// How many blocks share the tiles of a group of channels: each one tile, unless there are so many that reading
// taps, or writing sums, for each would cost more than what blocks of several tiles leave idle in the end.
template <class T>
int parts_of(const ConvTask<T>& task) {
  const int64_t each = divide_up(int64_t{task.pieces} * task.groups, int64_t{12} * multiprocessors());
  return static_cast<int>(divide_up(task.pieces, each));
}

template <class T, int K, bool Packed>
void launch_convolve(const DepthwiseConv& conv, const ColumnView& in, View weight, View bias, bool flipped,
                     const ColumnView& out) {
  if constexpr (Packed)
    if (patches_fit(conv)) return depthwise_conv_by_patches(conv, in, weight, bias, flipped, out);
  using L = Tile<T, K, Packed>;
  ConvTask<T> task = task_of<T, K, Packed>(conv);
  task.values = source_of<T>(conv, in);
  task.out = first_of<T>(out);
  task.out_stride = static_cast<unsigned>(out.stride);
  task.out_row_stride = conv.columns * out.stride;
  task.weight = weight.as<float>();
  task.bias = bias.as<float>();
  task.flipped = flipped;
  launch(convolve<T, K, Packed>, dim3(static_cast<unsigned>(task.groups * parts_of(task))),
         dim3(warp_size, L::warps), 2 * L::covered_chunk * sizeof(T) + L::area * L::taps_pitch * sizeof(float),
         task);
}

template <class T, int K, bool Packed>
void launch_gather_taps(const DepthwiseConv& conv, const ColumnView& values, const ColumnView& g, View dweight,
                        View dbias) {
  if constexpr (Packed)
    if (patches_fit(conv)) return depthwise_conv_gradients_by_patches(conv, values, g, dweight, dbias);
  using L = Tile<T, K, Packed>;
  ConvTask<T> task = task_of<T, K, Packed>(conv);
  task.values = source_of<T>(conv, values);
  task.g = source_of<T>(conv, g);
  const int parts = parts_of(task);
  const Scratch shares(static_cast<size_t>(parts * (L::area + 1) * conv.width) * sizeof(float));
  task.shares = shares.as<float>();
  constexpr size_t bytes = 2 * (L::covered_chunk + L::chunk_size) * sizeof(T);
  static_assert(bytes >= L::warps * (L::area + 1) * L::channels * sizeof(float));
  launch(gather_taps<T, K, Packed>, dim3(static_cast<unsigned>(task.groups * parts)), dim3(warp_size, L::warps),
         bytes, task);
  add_tap_shares(conv, task.shares, parts, dweight, dbias);
}

// body(a null T*, K, whether tensors are packed)
template <class Body>
void with_layout(const DepthwiseConv& conv, std::initializer_list<ColumnView> tensors, Body body) {
  with_float(conv.dtype, [&](auto* type) {
    with_kernel(conv.kernel, [&](auto kernel) {
      using T = Pointee<decltype(type)>;
      if (std::all_of(tensors.begin(), tensors.end(), [&](auto& x) { return is_packed<T>(x, conv.width); }))
        body(type, kernel, std::true_type());
      else
        body(type, kernel, std::false_type());
    });
  });
}

}  // namespace

void add_tap_shares(const DepthwiseConv& conv, const float* shares, int parts, View dweight, View dbias) {
  const int64_t area = conv.kernel * conv.kernel;
  launch(add_shares, dim3(static_cast<unsigned>(divide_up((area + 1) * conv.head_size, warp_size))),
         dim3(warp_size, adders), 0, shares, parts, static_cast<int>(conv.width),
         static_cast<int>(conv.head_size), static_cast<int>(area), dweight.as<float>(), dbias.as<float>());
}

void depthwise_conv(const DepthwiseConv& conv, const ColumnView& values, View weight, View bias,
                    const ColumnView& out) {
  with_layout(conv, {values, out}, [&](auto* type, auto kernel, auto packed) {
    launch_convolve<Pointee<decltype(type)>, kernel, packed>(conv, values, weight, bias, false, out);
  });
}

void depthwise_conv_backward(const DepthwiseConv& conv, const ColumnView& values, const ColumnView& g,
                             View weight, const ColumnView& dvalues, View dweight, View dbias) {
  with_layout(conv, {values, g, dvalues}, [&](auto* type, auto kernel, auto packed) {
    using T = Pointee<decltype(type)>;
    launch_convolve<T, kernel, packed>(conv, g, weight, View{}, true, dvalues);
    launch_gather_taps<T, kernel, packed>(conv, values, g, dweight, dbias);
  });
}

}  // namespace linnet::cuda
