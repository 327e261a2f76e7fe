// Sums over rows: two passes over ever fewer numbers, in an order that depends on
// nothing but the sizes and the card: a step of training can be repeated to the last bit.
#include "ops/reduce_cuda.h"

#include <algorithm>

#include "cuda/cells.h"
#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

// A pass: x (groups, rows, columns) → y (groups, chunks, columns), times factor; a chunk is so many rows.
struct RowSums {
  int64_t groups, rows, columns, chunk;
  float factor;
};

constexpr int most_threads = 1024, first_pass_threads = 256;

// A block takes blockDim.x · N neighbouring columns of a chunk; its threads of one y every blockDim.y-th row (a
// power of two). Reads each value of x once.
template <class T, int N>
__global__ void __launch_bounds__(N == 1 ? most_threads : first_pass_threads)
    sum_chunks(const T* x, float* y, RowSums s, int64_t chunks, unsigned stripes) {
  __shared__ float sums[most_threads];
  const int64_t part = blockIdx.x / stripes, group = part / chunks, first = part % chunks * s.chunk;
  const int64_t last = min(first + s.chunk, s.rows);
  const int64_t column = (static_cast<int64_t>(blockIdx.x % stripes) * blockDim.x + threadIdx.x) * N;
  const bool inside = column < s.columns;
  float sum[N] = {};
  if (inside) {
    const T* const at = x + group * s.rows * s.columns + column;
#pragma unroll 4
    for (int64_t row = first + threadIdx.y; row < last; row += blockDim.y) {
      const auto values = load_pack<N>(at + row * s.columns);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += to_float(values.at[i]);
    }
  }
  float* const own = sums + threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    *own = sum[i];
    __syncthreads();
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
      if (threadIdx.y < half) *own += own[half * blockDim.x];
      __syncthreads();
    }
    if (inside && threadIdx.y == 0) y[part * s.columns + column + i] = *own * s.factor;
  }
}

// The smallest power of two that is at least n, or `most`.
int64_t power_of_two(int64_t n, int64_t most) {
  int64_t power = 1;
  while (power < n && power < most) power *= 2;
  return power;
}

template <class T, int N>
void launch_pass(const T* x, float* y, const RowSums& s, int64_t threads) {
  const int64_t width = power_of_two(s.columns / N, warp_size), depth = threads / width;
  const int64_t chunks = divide_up(s.rows, s.chunk), stripes = divide_up(s.columns, width * N);
  launch(sum_chunks<T, N>, dim3(static_cast<unsigned>(s.groups * chunks * stripes)),
         dim3(static_cast<unsigned>(width), static_cast<unsigned>(depth)), 0, x, y, s, chunks,
         static_cast<unsigned>(stripes));
}

template <class T, int N>
void sum(const T* x, float* y, RowSums s) {
  const int64_t width = power_of_two(s.columns / N, warp_size), depth = first_pass_threads / width;
  const int64_t stripes = divide_up(s.columns, width * N);
  // As many blocks as the card holds at once, but enough rows for each thread that the second pass is small.
  const int64_t wanted = divide_up(int64_t{8} * multiprocessors(), stripes * s.groups);
  s.chunk = divide_up(s.rows, std::clamp<int64_t>(wanted, 1, divide_up(s.rows, 4 * depth)));
  const int64_t chunks = divide_up(s.rows, s.chunk);
  if (chunks == 1) return launch_pass<T, N>(x, y, s, first_pass_threads);
  const Scratch partial(static_cast<size_t>(s.groups * chunks * s.columns) * sizeof(float));
  launch_pass<T, N>(x, partial.as<float>(), {s.groups, s.rows, s.columns, s.chunk, 1.0f}, first_pass_threads);
  launch_pass<float, 1>(partial.as<float>(), y, {s.groups, chunks, s.columns, chunks, s.factor}, most_threads);
}

void sum_rows(View x, View y, int64_t rows, int64_t columns) { sum_rows_of_groups(x, y, 1, rows, columns); }

}  // namespace

void sum_rows_of_groups(View x, View y, int64_t groups, int64_t rows, int64_t columns, float factor) {
  if (groups * columns == 0) return;
  with_float(x.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    constexpr int wide = 16 / sizeof(T);
    const RowSums s{groups, rows, columns, rows, factor};
    if (has_packs(x, columns, wide))
      sum<T, wide>(x.as<T>(), y.as<float>(), s);
    else
      sum<T, 1>(x.as<T>(), y.as<float>(), s);
  });
}

void fill(ops::ReduceKernels& table) { table = {sum_rows}; }

}  // namespace linnet::cuda
