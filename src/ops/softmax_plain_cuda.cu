// Softmax attention without tensor cores: f32, exact, and heads wider than those kernels take. A block of 16×16
// threads works on a tile of 64×64 scores, of which each has 4×4, and on results of 64 rows, of which each has
// 4×4 in every 64 columns. Of a head wider than its registers hold, a block has a slice of the results'
// columns, and every block of the slices computes the scores.
#include "ops/softmax_cuda.cuh"

namespace linnet::cuda::softmax {
namespace {

constexpr int side = 64, pitch = side + 4, threads = 256, depth = 32;

/// Operands lie with their depth outermost, so that a thread reads its four neighbours at once.
struct Factors {
  float a[depth][pitch], b[depth][pitch];
};
struct alignas(16) Shared {
  float left[side][pitch];  ///< shares or the like
  union {
    Factors scores;
    float right[side][pitch];  ///< 64 columns of a tile of rows
  };
};

using Four = float[4][4];

// The first of this thread's rows and columns.
__device__ __forceinline__ int own_row() { return static_cast<int>(threadIdx.x) / 16 * 4; }
__device__ __forceinline__ int own_column() { return static_cast<int>(threadIdx.x) % 16 * 4; }

// result += leftᵀ·right, both of Depth rows.
template <int Depth>
__device__ __forceinline__ void multiply(Four& result, const float (&left)[Depth][pitch],
                                         const float (&right)[Depth][pitch]) {
  for (int step = 0; step < Depth; ++step) {
    const auto a = *seen_as<Pack<float, 4>>(&left[step][own_row()]);
    const auto b = *seen_as<Pack<float, 4>>(&right[step][own_column()]);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) result[i][j] = fmaf(a.at[i], b.at[j], result[i][j]);
  }
}

// Columns first.. of up to 64 rows, transposed.
template <class T>
__device__ __forceinline__ void load_depth(float (&to)[depth][pitch], const Rows<const T>& from, int rows,
                                           int first, int head_size) {
  for (int i = threadIdx.x; i < side * depth; i += threads) {
    const int row = i / depth, step = i % depth;
    const bool wanted = row < rows && first + step < head_size;
    to[step][row] = wanted ? to_float(from.at[row * from.stride + first + step]) : 0.0f;
  }
}

// scores = a·bᵀ of up to 64 rows each.
template <class T>
__device__ __forceinline__ void multiply_rows(Four& scores, Shared& shared, const Rows<const T>& a, int a_rows,
                                              const Rows<const T>& b, int b_rows, int head_size) {
#pragma unroll
  for (int i = 0; i < 16; ++i) scores[i / 4][i % 4] = 0;
  for (int first = 0; first < head_size; first += depth) {
    __syncthreads();  // what was there has been read
    load_depth(shared.scores.a, a, a_rows, first, head_size);
    load_depth(shared.scores.b, b, b_rows, first, head_size);
    __syncthreads();
    multiply(scores, shared.scores.a, shared.scores.b);
  }
}

// result (64, 64·Chunks) += x (64, 64)·rows.
template <int Chunks, class T>
__device__ __forceinline__ void multiply_add(Four (&result)[Chunks], const Four& x, Shared& shared,
                                             const Rows<const T>& from, int rows, int head_size) {
  __syncthreads();  // what was there has been read
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) shared.left[own_column() + j][own_row() + i] = x[i][j];
#pragma unroll
  for (int chunk = 0; chunk < Chunks; ++chunk) {
    if (chunk * side >= head_size) continue;
    if (chunk > 0) __syncthreads();
    for (int i = threadIdx.x; i < side * side; i += threads) {
      const int row = i / side, column = chunk * side + i % side;
      const bool wanted = row < rows && column < head_size;
      shared.right[row][i % side] = wanted ? to_float(from.at[row * from.stride + column]) : 0.0f;
    }
    __syncthreads();
    multiply(result[chunk], shared.left, shared.right);
  }
}

template <int Chunks, class T, class Factor>
__device__ __forceinline__ void store(const Rows<T>& to, const Four (&x)[Chunks], int rows, int head_size,
                                      Factor factor) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int chunk = 0; chunk < Chunks; ++chunk)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int row = own_row() + i, column = chunk * side + own_column() + j;
        if (row < rows && column < head_size)
          assign(to.at[row * to.stride + column], x[chunk][i][j] * factor(i));
      }
}

// The first column of a head that this block computes.
template <int Chunks>
__device__ __forceinline__ int slice_begin() {
  return static_cast<int>(blockIdx.y) * Chunks * side;
}

// A product as a score in units of log 2.
__device__ __forceinline__ float score_of(const Sequences& all, const Part& part, float product, int query,
                                          int key) {
  const float score = product * (all.scale * log2_e);
  return all.bias == nullptr ? score : score + bias_of(all, part.head, query, key);
}

// Over the sixteen threads that share rows.
template <class Combine>
__device__ __forceinline__ float over_row(float x, Combine combine) {
#pragma unroll
  for (int bits = 8; bits > 0; bits /= 2) x = combine(x, __shfl_xor_sync(all_lanes, x, bits));
  return x;
}

template <class T, int Chunks>
__global__ void __launch_bounds__(threads) attend(Attention<T> in, Rows<T> out, float* log_sums, int blocks) {
  __shared__ Shared shared;
  const Part part = part_of(in, blocks);
  const int first = part.block * side, column = part.head * in.head_size, rows = part.queries - first;
  if (rows <= 0) return;
  const int slice = slice_begin<Chunks>();
  const Rows<const T> q = in.q.from(part.first_query + first, column);
  Four result[Chunks] = {};
  float most[4], sum[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) most[i] = -INFINITY;
  for (int begin = 0; begin < part.keys; begin += side) {
    const int keys = part.keys - begin;
    Four p;
    multiply_rows(p, shared, q, rows, in.k.from(part.first_key + begin, column), keys, in.head_size);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float highest = most[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = own_column() + j;
        p[i][j] = key < keys ? score_of(in, part, p[i][j], first + own_row() + i, begin + key) : -INFINITY;
        highest = fmaxf(highest, p[i][j]);
      }
      highest = over_row(highest, [](float a, float b) { return fmaxf(a, b); });
      const float shrink = exp_2(most[i] - highest);
      most[i] = highest;
      sum[i] *= shrink;
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i] += p[i][j] = exp_2(p[i][j] - highest);
#pragma unroll
      for (int c = 0; c < Chunks; ++c)
#pragma unroll
        for (int j = 0; j < 4; ++j) result[c][i][j] *= shrink;
    }
    multiply_add(result, p, shared, in.v.from(part.first_key + begin, column + slice), keys,
                 in.head_size - slice);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum[i] = over_row(sum[i], [](float a, float b) { return a + b; });
    if (slice == 0 && own_column() == 0 && own_row() + i < rows)
      log_sums[part.head * in.queries + part.first_query + first + own_row() + i] =
          most[i] * ln_2 + logf(sum[i]);
  }
  store(out.from(part.first_query + first, column + slice), result, rows, in.head_size - slice,
        [&](int i) { return 1.0f / sum[i]; });
}

template <class T, int Chunks>
__global__ void __launch_bounds__(threads) key_gradients(Attention<T> in, Gradients<T> gradients, int blocks) {
  __shared__ Shared shared;
  const Part part = part_of(in, blocks);
  const int first = part.block * side, column = part.head * in.head_size, rows = part.keys - first;
  if (rows <= 0) return;
  const int slice = slice_begin<Chunks>(), columns = in.head_size - slice;
  const Rows<const T> k = in.k.from(part.first_key + first, column),
                      v = in.v.from(part.first_key + first, column);
  const RowSums* const sums = gradients.sums + part.head * in.queries + part.first_query;
  Four dk[Chunks] = {}, dv[Chunks] = {};
  for (int begin = 0; begin < part.queries; begin += side) {
    const int queries = part.queries - begin;
    const Rows<const T> q = in.q.from(part.first_query + begin, column),
                        g = gradients.g.from(part.first_query + begin, column);
    Four p, d;
    multiply_rows(p, shared, k, rows, q, queries, in.head_size);
    multiply_rows(d, shared, v, rows, g, queries, in.head_size);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int query = begin + own_column() + j;
      const RowSums row = query < part.queries ? sums[query] : RowSums{INFINITY, 0};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        p[i][j] = exp_2(score_of(in, part, p[i][j], query, first + own_row() + i) - row.log_sum);
        d[i][j] = p[i][j] * (d[i][j] - row.g_out);
      }
    }
    multiply_add(dv, p, shared, g.from(0, slice), queries, columns);
    multiply_add(dk, d, shared, q.from(0, slice), queries, columns);
  }
  store(gradients.dk.from(part.first_key + first, column + slice), dk, rows, columns,
        [&](int) { return in.scale; });
  store(gradients.dv.from(part.first_key + first, column + slice), dv, rows, columns, [](int) { return 1.0f; });
}

template <class T, int Chunks>
__global__ void __launch_bounds__(threads)
    query_gradients(Attention<T> in, Gradients<T> gradients, int blocks) {
  __shared__ Shared shared;
  const Part part = part_of(in, blocks);
  const int first = part.block * side, column = part.head * in.head_size, rows = part.queries - first;
  if (rows <= 0) return;
  const int slice = slice_begin<Chunks>(), columns = in.head_size - slice;
  const int64_t row = part.first_query + first;
  const Rows<const T> q = in.q.from(row, column), g = gradients.g.from(row, column);
  RowSums sums[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    sums[i] = own_row() + i < rows ? gradients.sums[part.head * in.queries + row + own_row() + i]
                                   : RowSums{INFINITY, 0};
  Four dq[Chunks] = {};
  for (int begin = 0; begin < part.keys; begin += side) {
    const int keys = part.keys - begin;
    const Rows<const T> k = in.k.from(part.first_key + begin, column),
                        v = in.v.from(part.first_key + begin, column);
    Four p, d;
    multiply_rows(p, shared, q, rows, k, keys, in.head_size);
    multiply_rows(d, shared, g, rows, v, keys, in.head_size);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = own_column() + j;
        const float score = score_of(in, part, p[i][j], first + own_row() + i, begin + key);
        d[i][j] = key < keys ? exp_2(score - sums[i].log_sum) * (d[i][j] - sums[i].g_out) : 0.0f;
      }
    multiply_add(dq, d, shared, k.from(0, slice), keys, columns);
  }
  store(gradients.dq.from(row, column + slice), dq, rows, columns, [&](int) { return in.scale; });
}

// body(std::integral_constant<int, chunks>) of 64 columns each. Narrow heads of 16-bit types come
// here only where tensor cores lack the type (bf16 before 8.0), too seldom for kernels of their own.
template <class T, class Body>
void with_chunks(int64_t head_size, Body&& body) {
  if constexpr (std::is_same_v<T, float>) {
    if (head_size <= 64) return body(std::integral_constant<int, 1>());
    if (head_size <= 128) return body(std::integral_constant<int, 2>());
  }
  return body(std::integral_constant<int, 4>());
}

// A block of threads for each block of rows and slice of columns, of each head and sequence.
dim3 grid_of(const ops::GpuAttention& in, int64_t blocks, int chunks) {
  dim3 grid = softmax::grid_of(in, blocks);
  grid.y = static_cast<unsigned>(divide_up(in.head_size, int64_t{chunks} * side));
  return grid;
}

}  // namespace

template <class T>
void forward_plainly(const ops::GpuAttention& in, View out, View log_sums) {
  const int64_t blocks = divide_up(in.longest_queries, side);
  const ops::ColumnView result{out, in.heads * in.head_size, 0};
  with_chunks<T>(in.head_size, [&](auto chunks) {
    launch(attend<T, chunks()>, grid_of(in, blocks, chunks()), dim3(threads), 0, attention_of<T>(in, false),
           rows_of<T>(result), log_sums.as<float>(), static_cast<int>(blocks));
  });
}

template <class T>
void backward_plainly(const ops::GpuAttention& in, const Gradients<T>& gradients) {
  const int64_t key_blocks = divide_up(in.longest_keys, side),
                query_blocks = divide_up(in.longest_queries, side);
  with_chunks<T>(in.head_size, [&](auto chunks) {
    launch(key_gradients<T, chunks()>, grid_of(in, key_blocks, chunks()), dim3(threads), 0,
           attention_of<T>(in, false), gradients, static_cast<int>(key_blocks));
    launch(query_gradients<T, chunks()>, grid_of(in, query_blocks, chunks()), dim3(threads), 0,
           attention_of<T>(in, false), gradients, static_cast<int>(query_blocks));
  });
}

template void forward_plainly<float>(const ops::GpuAttention&, View, View);
template void forward_plainly<bf16>(const ops::GpuAttention&, View, View);
template void forward_plainly<f16>(const ops::GpuAttention&, View, View);
template void backward_plainly<float>(const ops::GpuAttention&, const Gradients<float>&);
template void backward_plainly<bf16>(const ops::GpuAttention&, const Gradients<bf16>&);
template void backward_plainly<f16>(const ops::GpuAttention&, const Gradients<f16>&);

}  // namespace linnet::cuda::softmax
