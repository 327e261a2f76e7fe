// The strided depth-wise convolution of ops/compress_tokens.h; neighbouring threads work on neighbouring
// channels.
#include "cuda/cells.h"
#include "cuda/kernels.h"
#include "cuda/runtime.h"
#include "ops/reduce_cuda.h"

namespace linnet::cuda {
namespace {

// Squares of all samples are counted through, and so are their rows.
struct Squares {
  int64_t batch, rows, columns, size, d;

  __host__ __device__ int64_t across() const { return columns / size; }
  __host__ __device__ int64_t down() const { return rows / size; }
  __host__ __device__ int64_t count() const { return batch * down() * across(); }
  __host__ __device__ int64_t filters() const { return size * size; }
  /// The first token of the first square of a row of squares.
  __device__ int64_t first_token(int64_t square_row) const {
    return (square_row / down() * rows + square_row % down() * size) * columns;
  }
  /// From a square's first token to its p-th.
  __device__ int64_t step_to(int64_t p) const { return p / size * columns + p % size; }
};

// Reads each value of x once: sizeof(T) + 4/size² bytes of it.
template <class T, int N>
__global__ void compress(Squares s, const T* x, const float* weight, const float* bias, float* y) {
  for_cells(s.count(), s.d / N, [&](int64_t square, int64_t pack) {
    const int64_t channel = pack * N, token = s.first_token(square / s.across()) + square % s.across() * s.size;
    Pack<float, N> sum = load_pack<N>(bias + channel);
    for (int64_t p = 0; p < s.filters(); ++p) {
      const auto values = load_pack<N>(x + (token + s.step_to(p)) * s.d + channel);
      const auto factors = load_pack<N>(weight + p * s.d + channel);
#pragma unroll
      for (int i = 0; i < N; ++i) sum.at[i] = fmaf(to_float(values.at[i]), factors.at[i], sum.at[i]);
    }
    store_pack(y + square * s.d + channel, sum);
  });
}

// dx = g·weight where a square lies, and 0 where none does.
template <class T, int N>
__global__ void spread(Squares s, const float* g, const float* weight, T* dx) {
  for_cells(s.batch * s.rows * s.columns, s.d / N, [&](int64_t token, int64_t pack) {
    const int64_t channel = pack * N, column = token % s.columns, row = token / s.columns % s.rows;
    const int64_t across = column / s.size, down = row / s.size;
    Pack<T, N> out;
    if (across < s.across() && down < s.down()) {
      const int64_t sample = token / (s.rows * s.columns);
      const int64_t square = (sample * s.down() + down) * s.across() + across;
      const int64_t p = row % s.size * s.size + column % s.size;
      const auto gradient = load_pack<N>(g + square * s.d + channel);
      const auto factors = load_pack<N>(weight + p * s.d + channel);
#pragma unroll
      for (int i = 0; i < N; ++i) assign(out.at[i], gradient.at[i] * factors.at[i]);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) assign(out.at[i], 0.0f);
    }
    store_pack(dx + token * s.d + channel, out);
  });
}

// partial (chunks, size², d): Σ g·x over every chunks-th row of squares.
template <class T>
__global__ void sum_products(Squares s, const float* g, const T* x, float* partial, int64_t chunks) {
  const int64_t width = s.filters() * s.d;
  for_cells(chunks, width, [&](int64_t chunk, int64_t weight) {
    const int64_t step = s.step_to(weight / s.d), channel = weight % s.d;
    float sum = 0;
    for (int64_t row = chunk; row < s.batch * s.down(); row += chunks) {
      const float* gradient = g + row * s.across() * s.d + channel;
      const T* value = x + (s.first_token(row) + step) * s.d + channel;
#pragma unroll 4
      for (int64_t i = 0; i < s.across(); ++i)
        sum = fmaf(gradient[i * s.d], to_float(value[i * s.size * s.d]), sum);
    }
    partial[chunk * width + weight] = sum;
  });
}

// As many threads as the card holds, in this many parts of each sum.
int64_t chunks_of(const Squares& s) {
  const int64_t wanted = divide_up(int64_t{2048} * multiprocessors(), s.filters() * s.d);
  return std::min(wanted, s.batch * s.down());
}

void forward(View x, View weight, View bias, View y, int64_t batch, int64_t rows, int64_t columns, int64_t size,
             int64_t d) {
  const Squares s{batch, rows, columns, size, d};
  const bool packs =
      has_packs(x, d, 4) && has_packs(weight, d, 4) && has_packs(bias, d, 4) && has_packs(y, d, 4);
  with_float(x.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch_cells(s.count(), packs ? d / 4 : d, packs ? compress<T, 4> : compress<T, 1>, s, x.as<T>(),
                 weight.as<float>(), bias.as<float>(), y.as<float>());
  });
}

void backward(View g, View x, View weight, View dx, View dweight, View dbias, int64_t batch, int64_t rows,
              int64_t columns, int64_t size, int64_t d) {
  const Squares s{batch, rows, columns, size, d};
  const bool packs = has_packs(g, d, 4) && has_packs(weight, d, 4) && has_packs(dx, d, 4);
  const int64_t chunks = chunks_of(s);
  const Scratch partial(static_cast<size_t>(chunks * s.filters() * d) * sizeof(float));
  with_float(x.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch_cells(batch * rows * columns, packs ? d / 4 : d, packs ? spread<T, 4> : spread<T, 1>, s,
                 g.as<float>(), weight.as<float>(), dx.as<T>());
    launch_cells(chunks, s.filters() * d, sum_products<T>, s, g.as<float>(), x.as<T>(), partial.as<float>(),
                 chunks);
  });
  sum_rows_of_groups({partial.as<void>(), DType::f32}, dweight, 1, chunks, s.filters() * d);
  sum_rows_of_groups(g, dbias, 1, s.count(), d);
}

}  // namespace

void fill(ops::CompressKernels& table) { table = {forward, backward}; }

}  // namespace linnet::cuda
