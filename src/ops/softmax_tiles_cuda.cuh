// Tiles of softmax attention for tensor cores. A tile of rows (queries, keys, ...) lies in shared memory; each
// of four warps owns 16 rows (or twice that) of the block's own, whose fragments and results stay in registers.
// A tile of scores is never in memory at all: as the result of one product it has the very layout that the left
// operand of the next one wants.
#pragma once

#include "cuda/tensor_cores.h"
#include "ops/softmax_cuda.cuh"

namespace linnet::cuda::softmax {

constexpr int tile_warps = 4, tile_threads = tile_warps * warp_size;

/// Whether this architecture's tensor cores take T. Turing's take no bf16, and it has plain kernels for that
/// instead (has_tiles() in softmax_cuda.cu).
template <class T>
__device__ constexpr bool can_multiply() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return std::is_same_v<T, f16>;
#else
  return true;
#endif
}

/// How heads of up to Width (a multiple of 8) columns lie in shared memory: with zeros up to the depth of a
/// product, and 16 bytes more, so that eight rows' 16 bytes lie in different banks.
template <int Width>
struct Layout {
  static constexpr int depth = (Width + 15) / 16 * 16, pitch = depth + 8;
  static constexpr int steps = depth / 16;  ///< of a product over columns
  static constexpr int tiles = Width / 8;   ///< of a result's columns
};

/// Copies Packs (a power of 2) times 8 columns of Count rows; neighbours in a row are copied by neighbours.
template <class T, int Packs, int Pitch, int Count>
__device__ __forceinline__ void fetch_columns(T* tile, const Rows<const T>& from, int first, int rows,
                                              int head_size) {
  constexpr int at_once = tile_threads / Packs;
  const int row = threadIdx.x / Packs, column = first + threadIdx.x % Packs * 8;
  const T* at = from.at + row * from.stride + column;
  T* to = tile + row * Pitch + column;
#pragma unroll
  for (int i = 0; i < Count; i += at_once) {
    if (Count % at_once == 0 || i + row < Count) copy_16(to, at, i + row < rows && column < head_size);
    at += at_once * from.stride;
    to += at_once * Pitch;
  }
}

/// Begins to copy `rows` of at most Count rows into shared memory; the others are zeros.
template <class T, int Width, int Count>
__device__ __forceinline__ void fetch_rows(T* tile, const Rows<const T>& from, int rows, int head_size,
                                           bool packed) {
  constexpr int pitch = Layout<Width>::pitch, depth = Layout<Width>::depth;
  if (packed) {
    constexpr int most = Width < 64 ? 4 : Width < 128 ? 8 : 16, rest = depth / 8 - most;
    fetch_columns<T, most, pitch, Count>(tile, from, 0, rows, head_size);
    if constexpr (rest > 0) fetch_columns<T, rest, pitch, Count>(tile, from, 8 * most, rows, head_size);
    return;
  }
#pragma unroll 1
  for (int i = threadIdx.x; i < Count * depth; i += tile_threads) {
    const int row = i / depth, column = i % depth;
    tile[row * pitch + column] = row < rows && column < head_size ? from.at[row * from.stride + column] : T{0};
  }
}

/// The way back.
template <class T, int Width, int Count>
__device__ __forceinline__ void store_rows(const T* tile, const Rows<T>& to, int rows, int head_size,
                                           bool packed) {
  constexpr int pitch = Layout<Width>::pitch, packs = Width / 8;
  if (packed) {
#pragma unroll
    for (int i = threadIdx.x; i < Count * packs; i += tile_threads) {
      const int row = i / packs, column = i % packs * 8;
      if (row < rows && column < head_size)
        *seen_as<uint4>(to.at + row * to.stride + column) = *seen_as<uint4>(tile + row * pitch + column);
    }
    return;
  }
#pragma unroll 1
  for (int i = threadIdx.x; i < Count * Width; i += tile_threads) {
    const int row = i / Width, column = i % Width;
    if (row < rows && column < head_size) to.at[row * to.stride + column] = tile[row * pitch + column];
  }
}

/// The first row of the block's own that this warp owns, of R tiles of 16.
template <int R>
__device__ __forceinline__ int first_of_warp() {
  return static_cast<int>(threadIdx.x) / warp_size * 16 * R;
}
/// Which of 16 rows and 8 columns a number of a result is.
__device__ __forceinline__ int row_in_tile(int number) {
  return static_cast<int>(threadIdx.x) % warp_size / 4 + number / 2 * 8;
}
__device__ __forceinline__ int column_in_tile(int number) {
  return static_cast<int>(threadIdx.x) % 4 * 2 + number % 2;
}

/// This warp's rows of the block's own, as left operand of products over columns.
template <class T, int Width, int R>
__device__ __forceinline__ void load_left(unsigned (&left)[R][Layout<Width>::steps][4], const T* tile) {
  const int lane = threadIdx.x % warp_size;
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int step = 0; step < Layout<Width>::steps; ++step)
      load_tiles(left[r][step], tile + (first_of_warp<R>() + 16 * r + lane % 16) * Layout<Width>::pitch +
                                    16 * step + lane / 16 * 8);
}

/// result (rows, Columns) = left (rows, Width)·tileᵀ, whose rows are (Columns, Width).
template <class T, int Width, int Columns, int R>
__device__ __forceinline__ void multiply_transposed(float (&result)[R][Columns / 8][4],
                                                    const unsigned (&left)[R][Layout<Width>::steps][4],
                                                    const T* tile) {
  const int lane = threadIdx.x % warp_size;
  const T* own = tile + (lane / 16 * 8 + lane % 8) * Layout<Width>::pitch + lane / 8 % 2 * 8;
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int j = 0; j < Columns / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) result[r][j][e] = 0;
#pragma unroll
  for (int step = 0; step < Layout<Width>::steps; ++step)
#pragma unroll
    for (int j = 0; j < Columns / 16; ++j) {
      unsigned right[4];
      load_tiles(right, own + 16 * j * Layout<Width>::pitch + 16 * step);
      const unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
#pragma unroll
      for (int r = 0; r < R; ++r) {
        mma<T>(result[r][2 * j], left[r][step], first);
        mma<T>(result[r][2 * j + 1], left[r][step], second);
      }
    }
}

/// result (rows, Width) += left (rows, Depth)·tile (Depth, Width).
template <class T, int Width, int Depth, int R>
__device__ __forceinline__ void multiply(float (&result)[R][Layout<Width>::tiles][4],
                                         const unsigned (&left)[R][Depth / 16][4], const T* tile) {
  constexpr int tiles = Layout<Width>::tiles;
  const int lane = threadIdx.x % warp_size;
  const T* own = tile + lane % 16 * Layout<Width>::pitch + lane / 16 * 8;
#pragma unroll
  for (int step = 0; step < Depth / 16; ++step)
#pragma unroll
    for (int j = 0; j < tiles; j += 2) {
      unsigned right[4];
      load_tiles_transposed(right, own + 16 * step * Layout<Width>::pitch + 8 * j);
      const unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
#pragma unroll
      for (int r = 0; r < R; ++r) {
        mma<T>(result[r][j], left[r][step], first);
        if (j + 1 < tiles) mma<T>(result[r][j + 1], left[r][step], second);
      }
    }
}

/// A product's result as the left operand of the next one.
template <class T, int R, int Tiles>
__device__ __forceinline__ void as_left(unsigned (&left)[R][Tiles / 2][4], const float (&x)[R][Tiles][4]) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int j = 0; j < Tiles; ++j) {
      left[r][j / 2][j % 2 * 2] = pack<T>(x[r][j][0], x[r][j][1]);
      left[r][j / 2][j % 2 * 2 + 1] = pack<T>(x[r][j][2], x[r][j][3]);
    }
}

/// This warp's rows of a result into a tile, each times its factor: factor(r, half) of row 16·r + 8·half.
template <class T, int Width, int R, class Factor>
__device__ __forceinline__ void put_rows(T* tile, const float (&x)[R][Layout<Width>::tiles][4], Factor factor) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float times = factor(r, half);
      T* row = tile + (first_of_warp<R>() + 16 * r + row_in_tile(2 * half)) * Layout<Width>::pitch;
#pragma unroll
      for (int j = 0; j < Layout<Width>::tiles; ++j)
        *seen_as<unsigned>(row + 8 * j + column_in_tile(0)) =
            pack<T>(x[r][j][2 * half] * times, x[r][j][2 * half + 1] * times);
    }
}

/// How products become scores in units of log 2: by `before` in adjust(), which only few tiles need, and by
/// `after` in the multiplication that comes with the exponential anyway.
struct Factors {
  float before, after;
  bool always;  ///< whether all tiles need adjust()
};
__device__ __forceinline__ Factors factors_of(const Sequences& all) {
  const float factor = all.scale * log2_e;
  const bool always = all.bias != nullptr || !(all.scale > 0);
  return {always ? factor : 1.0f, always ? 1.0f : factor, always};
}

/// Adds the bias. Rows and columns are counted from the sequence's first. Entries are the same along a
/// diagonal.
template <bool RowsAreKeys, int R, int Tiles>
__device__ __forceinline__ void add_bias(float (&scores)[R][Tiles][4], const Sequences& all, const Part& part,
                                         int first_row, int first_column) {
  const int row = first_row + row_in_tile(0), column = first_column + column_in_tile(0);
#pragma unroll
  for (int diagonal = 1 - 2 * R; diagonal < Tiles; ++diagonal)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int right = column + 8 * diagonal + e;
      const float bias =
          RowsAreKeys ? bias_of(all, part.head, right, row) : bias_of(all, part.head, row, right);
#pragma unroll
      for (int half = 0; half < 2 * R; ++half)
        if (const int j = diagonal + half; j >= 0 && j < Tiles) scores[half / 2][j][half % 2 * 2 + e] += bias;
    }
}

/// Adds the bias, and puts −∞ behind the last column.
template <bool RowsAreKeys, int R, int Tiles>
__device__ __forceinline__ void adjust(float (&scores)[R][Tiles][4], const Sequences& all, const Part& part,
                                       float before, int first_row, int first_column, int columns) {
  const int last = columns - first_column - column_in_tile(0);
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int j = 0; j < Tiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) scores[r][j][e] = 8 * j + e % 2 < last ? scores[r][j][e] * before : -INFINITY;
  if (R == 1 && all.bias != nullptr) add_bias<RowsAreKeys>(scores, all, part, first_row, first_column);
}

/// Whether blocks of 128 queries, which read keys and values half as often as those of 64, keep every
/// multiprocessor busy.
inline bool fills_large_blocks(const ops::GpuAttention& in) {
  if (in.bias.data != nullptr) return false;  // for which there are registers in smaller ones alone
  const int64_t blocks = divide_up(in.longest_queries, 128) * in.heads * in.sequences;
  return in.longest_queries > 64 && blocks >= 2 * multiprocessors();
}

/// body(std::integral_constant<int, width>) with the narrowest layout for heads of that size. 72 is that of
/// DiT-XL, which saves a tenth of the work of 80.
template <class Body>
void with_width(int64_t head_size, Body&& body) {
  if (head_size <= 32) return body(std::integral_constant<int, 32>());
  if (head_size <= 64) return body(std::integral_constant<int, 64>());
  if (head_size <= 72) return body(std::integral_constant<int, 72>());
  return body(std::integral_constant<int, static_cast<int>(widest_tile)>());
}

}  // namespace linnet::cuda::softmax
