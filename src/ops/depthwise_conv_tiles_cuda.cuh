// What the kernels of the depth-wise convolution share: the tile that a block works on, its place in the grid,
// and how taps and rows of values come to shared memory and registers.
#pragma once

#include "cuda/cells.h"
#include "cuda/tensor_cores.h"
#include "ops/depthwise_conv_cuda.h"

namespace linnet::cuda::depthwise {

constexpr int strip = 4;  // columns of a thread

// Packed: whether 16 bytes of all tensors can be copied at once.
template <class T, int K_, bool Packed>
struct Tile {
  static constexpr bool packed = Packed;
  static constexpr int K = K_, area = K * K;
  static constexpr int C = K < 7 && sizeof(T) == 2 ? 2 : 1;  // channels of a thread, as registers allow
  static constexpr int warps = K < 7 ? 4 : 2;                // next to each other along the grid's columns
  static constexpr int threads = warps * warp_size;
  static constexpr int blocks = Packed ? 512 / threads : 2;  // of a multiprocessor, to hide what they wait for
  static constexpr int channels = warp_size * C;
  static constexpr int columns = warps * strip;
  static constexpr int covered = columns + K - 1;  // columns of the values under the filter
  // Rows that are copied together: a multiple of K, so that rows of results have the same registers each time.
  static constexpr int chunk = K == 1 ? 4 : K == 3 ? 6 : K;
  static constexpr int taps_pitch = channels + 2;  // between taps of all channels in shared memory
  // Elements of a chunk in shared memory.
  static constexpr int covered_chunk = chunk * covered * channels, chunk_size = chunk * columns * channels;
};

// Columns of a tensor that a convolution reads.
template <class T>
struct Source {
  const T* first;
  int stride;
  int64_t row_stride;
};

template <class T>
Source<T> source_of(const DepthwiseConv& conv, const ops::ColumnView& columns) {
  return {columns.view.as<T>() + columns.first, static_cast<int>(columns.stride),
          conv.columns * columns.stride};
}

template <class T>
struct ConvTask {
  Source<T> values, g;  // g: if gradients of taps are wanted
  T* out;
  unsigned out_stride;
  int64_t out_row_stride;
  const float *weight, *bias;
  bool flipped;   // the taps
  float* shares;  // (parts, K·K + 1, width): what blocks gather of dweight and dbias
  int rows, columns, width, head_size;
  int groups;        // of channels, a block's each
  int down, across;  // tiles that make up a sample
  int height;        // of a tile
  int pieces;        // batch·down·across
};

// With tiles of L, whose height is not chosen yet.
template <class L, class T>
ConvTask<T> uncut_task(const DepthwiseConv& conv) {
  ConvTask<T> task{};
  task.rows = static_cast<int>(conv.rows);
  task.columns = static_cast<int>(conv.columns);
  task.width = static_cast<int>(conv.width);
  task.head_size = static_cast<int>(conv.head_size);
  task.groups = static_cast<int>(divide_up(conv.width, L::channels));
  task.across = static_cast<int>(divide_up(conv.columns, L::columns));
  return task;
}

// What a block works on.
struct Place {
  int64_t token;  // of the sample's first
  int channel;    // the first of the block's
  int column;     // likewise
  int top, bottom;
};
template <class L, class T>
__device__ __forceinline__ Place place_of(const ConvTask<T>& task, int group, int piece) {
  const int across = piece % task.across, down = piece / task.across % task.down;
  const int64_t sample = piece / task.across / task.down;
  const int top = down * task.height;
  return {sample * task.rows * task.columns, group * L::channels, across * L::columns, top,
          min(top + task.height, task.rows)};
}

template <class L>
__device__ __forceinline__ int thread_of_block() {
  return static_cast<int>(threadIdx.y * warp_size + threadIdx.x);
}

// The taps of a thread's channels, in the reverse order if flipped. A warp reads a filter at a time.
template <class L, class T>
__device__ __forceinline__ void load_taps(const ConvTask<T>& task, int first, float* staged,
                                          float (&taps)[L::area][L::C]) {
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  const int step = L::warps % task.head_size;
  const int first_of_head = (first + warp) % task.head_size;
#pragma unroll
  for (int first_tap = 0; first_tap < L::area; first_tap += warp_size) {
    const int tap = first_tap + lane;
    int of_head = first_of_head;
    if (tap >= L::area) continue;
    const float* weight = task.weight + tap;
    float* to = staged + (task.flipped ? L::area - 1 - tap : tap) * L::taps_pitch + warp;
#pragma unroll
    for (int i = 0; i < L::channels; i += L::warps) {
      to[i] = weight[of_head * L::area];
      of_head += step;
      if (of_head >= task.head_size) of_head -= task.head_size;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < L::area; ++i) {
    const auto pack = load_pack<L::C>(staged + i * L::taps_pitch + lane * L::C);
#pragma unroll
    for (int c = 0; c < L::C; ++c) taps[i][c] = pack.at[c];
  }
}

// Starts the copy of a chunk of rows of Columns columns to shared memory: zeros where they are not of the grid,
// or not within the rows [top, bottom).
template <class L, int Columns, class T>
__device__ __forceinline__ void fetch(T* to, const ConvTask<T>& task, const Source<T>& source,
                                      const Place& place, int column, int row, int top, int bottom) {
  constexpr int n = 16 / sizeof(T), packs = L::channels / n;
  const T* first = source.first + place.token * source.stride + row * source.row_stride + place.channel;
  const auto is_wanted = [=](int r) {
    return static_cast<unsigned>(row + r - top) < static_cast<unsigned>(bottom - top);
  };
  if constexpr (L::packed) {
    const int offset = thread_of_block<L>() % packs * n;
#pragma unroll 1
    for (int c = thread_of_block<L>() / packs; c < Columns; c += L::threads / packs) {
      const int x = column + c;
      const bool wanted = place.channel + offset < task.width && x >= 0 && x < task.columns;
      const T* from = first + (static_cast<int64_t>(x) * source.stride + offset);
#pragma unroll
      for (int r = 0; r < L::chunk; ++r, from += source.row_stride)
        copy_16(to + (r * Columns + c) * L::channels + offset, from, wanted && is_wanted(r));
    }
  } else {
    for (int i = thread_of_block<L>(); i < Columns * L::channels; i += L::threads) {
      const int x = column + i / L::channels, offset = i % L::channels;
      const bool wanted = place.channel + offset < task.width && x >= 0 && x < task.columns;
      const T* from = first + (static_cast<int64_t>(x) * source.stride + offset);
      for (int r = 0; r < L::chunk; ++r)
        if (wanted && is_wanted(r))
          to[r * Columns * L::channels + i] = from[r * source.row_stride];
        else
          assign(to[r * Columns * L::channels + i], 0.0f);
    }
  }
}

// A row of a thread's channels in shared memory.
template <class L, int N, class T>
__device__ __forceinline__ void read_row(const T* from, float (&values)[N][L::C]) {
#pragma unroll
  for (int s = 0; s < N; ++s) {
    const T* at = from + s * L::channels;
    if constexpr (L::C == 2) {
      const float2 both = unpack<T>(*static_cast<const unsigned*>(static_cast<const void*>(at)));
      values[s][0] = both.x;
      values[s][1] = both.y;
    } else {
      values[s][0] = to_float(*at);
    }
  }
}

}  // namespace linnet::cuda::depthwise
