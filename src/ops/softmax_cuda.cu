// The table of softmax attention's kernels: chooses between those for tensor cores and the plain ones, and has
// what comes before and after them: sums of rows for the backward pass, the bias's gradient, and softmax of
// rows.
#include <type_traits>

#include "cuda/kernels.h"
#include "ops/softmax_cuda.cuh"

namespace linnet::cuda {
namespace {

using namespace softmax;

constexpr int threads = 256;

template <class T>
constexpr bool may_have_tiles = !std::is_same_v<T, float>;

// Tensor cores take bf16 from architecture 8.0 on.
template <class T>
bool has_tiles(int64_t head_size) {
  return may_have_tiles<T> && head_size <= widest_tile &&
         (!std::is_same_v<T, bf16> || architecture_of_kernels() >= 80);
}

// The RowSums of each query and head, and g in q's type. The sums are of that g, too: they are subtracted from
// products with it, and often little is left. Eight threads work on one, N neighbours each at a time. Reads out
// and g once.
template <int N, class T, class G>
__global__ void prepare(const G* g, const T* out, const float* log_sums, RowSums* sums, T* converted,
                        int64_t queries, int heads, int head_size) {
  const int64_t index = thread_number() / 8, query = index / heads, head = index % heads;
  float sum = 0;
  if (query < queries)
    for (int column = threadIdx.x % 8 * N; column < head_size; column += 8 * N) {
      const int64_t at = index * head_size + column;
      const auto some_g = *seen_as<Pack<G, N>>(g + at);
      const auto some_out = *seen_as<Pack<T, N>>(out + at);
      Pack<T, N> same;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        assign(same.at[i], to_float(some_g.at[i]));
        sum = fmaf(to_float(same.at[i]), to_float(some_out.at[i]), sum);
      }
      if (converted != nullptr) *seen_as<Pack<T, N>>(converted + at) = same;
    }
#pragma unroll
  for (int bits = 4; bits > 0; bits /= 2) sum += __shfl_xor_sync(all_lanes, sum, bits);
  if (threadIdx.x % 8 == 0 && query < queries)
    sums[head * queries + query] = {log_sums[head * queries + query] * log2_e, sum};
}

// A block sums over all pairs of a query and a key that are as far apart as one entry of the bias says; a warp
// takes a pair at a time, its lanes the columns. For T5, whose texts are short.
template <class T>
__global__ void bias_gradient(Attention<T> in, Gradients<T> gradients, float* dbias) {
  const int head = static_cast<int>(blockIdx.x) / in.bias_width,
            entry = static_cast<int>(blockIdx.x) % in.bias_width;
  const int distance = entry - in.bias_width / 2, column = head * in.head_size;
  const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
  float sum = 0;
  for (int sequence = 0; sequence < in.count; ++sequence) {
    const Span queries = span_of(in.query_offsets, in.queries, in.count, sequence);
    const Span keys = span_of(in.key_offsets, in.keys, in.count, sequence);
    const int end = min(queries.length, keys.length - distance);
    for (int i = max(0, -distance) + warp; i < end; i += threads / warp_size) {
      const int64_t query = queries.first + i, key = keys.first + i + distance;
      const T *q = in.q.from(query, column).at, *g = gradients.g.from(query, column).at;
      const T *k = in.k.from(key, column).at, *v = in.v.from(key, column).at;
      float score = 0, d = 0;
      for (int c = lane; c < in.head_size; c += warp_size) {
        score = fmaf(to_float(q[c]), to_float(k[c]), score);
        d = fmaf(to_float(g[c]), to_float(v[c]), d);
      }
      const RowSums row = gradients.sums[head * in.queries + query];
      score = warp_sum(score) * (in.scale * log2_e) + bias_of(in, head, i, i + distance);
      sum += exp_2(score - row.log_sum) * (warp_sum(d) - row.g_out);
    }
  }
  sum = block_sum(lane == 0 ? sum : 0.0f);
  if (threadIdx.x == 0) dbias[blockIdx.x] += sum;
}

// A block takes a row: first the largest score and the sum of exponentials, then the shares. The second time
// the row comes from the caches: 4 bytes an element from memory, and the result.
template <int N, class T>
__global__ void softmax_rows(const float* scores, T* shares, int64_t columns, float factor) {
  const float* row = scores + blockIdx.x * columns;
  float most = -INFINITY, sum = 0;
  for (int64_t at = threadIdx.x * N; at < columns; at += threads * N) {
    const auto some = *seen_as<Pack<float, N>>(row + at);
    float highest = most;
#pragma unroll
    for (int i = 0; i < N; ++i) highest = fmaxf(highest, some.at[i] * factor);
    sum *= exp_2(most - highest);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += exp_2(fmaf(some.at[i], factor, -highest));
    most = highest;
  }
  __shared__ float warp_most[threads / warp_size];
  float highest = warp_max(most);
  if (threadIdx.x % warp_size == 0) warp_most[threadIdx.x / warp_size] = highest;
  __syncthreads();
  for (const float other : warp_most) highest = fmaxf(highest, other);
  const float share = 1.0f / block_sum(sum > 0 ? sum * exp_2(most - highest) : 0.0f);
  for (int64_t at = threadIdx.x * N; at < columns; at += threads * N) {
    const auto some = *seen_as<Pack<float, N>>(row + at);
    Pack<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) assign(result.at[i], exp_2(fmaf(some.at[i], factor, -highest)) * share);
    *seen_as<Pack<T, N>>(shares + blockIdx.x * columns + at) = result;
  }
}

void forward(const ops::GpuAttention& in, View out, View log_sums) {
  with_float(out.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    if constexpr (may_have_tiles<T>)
      if (has_tiles<T>(in.head_size)) return forward_by_tiles<T>(in, out, log_sums);
    forward_plainly<T>(in, out, log_sums);
  });
}

template <class T>
void prepare_sums(const ops::GpuAttention& in, View g, View out, View log_sums, RowSums* sums, T* converted) {
  with_float(g.dtype, [&](auto* type) {
    using G = Pointee<decltype(type)>;
    const auto kernel = in.head_size % 4 == 0 ? prepare<4, T, G> : prepare<1, T, G>;
    launch(kernel, dim3(static_cast<unsigned>(divide_up(in.queries * in.heads * 8, threads))), dim3(threads), 0,
           g.as<G>(), out.as<T>(), log_sums.as<float>(), sums, converted, in.queries,
           static_cast<int>(in.heads), static_cast<int>(in.head_size));
  });
}

template <class T>
void backward_of(const ops::GpuAttention& in, View g, View out, View log_sums, const ops::ColumnView& dq,
                 const ops::ColumnView& dk, const ops::ColumnView& dv, View dbias) {
  const int64_t width = in.heads * in.head_size, numbers = in.queries * in.heads;
  const bool same_type = g.dtype == out.dtype;
  const Scratch sums(static_cast<size_t>(numbers) * sizeof(RowSums));
  const Scratch converted(same_type ? 0 : static_cast<size_t>(in.queries * width) * sizeof(T));
  prepare_sums<T>(in, g, out, log_sums, sums.as<RowSums>(), same_type ? nullptr : converted.as<T>());
  const ops::ColumnView own_g{same_type ? g : View{converted.as<void>(), out.dtype}, width, 0};
  const Gradients<T> gradients{rows_of<const T>(own_g), sums.as<const RowSums>(), rows_of<T>(dq),
                               rows_of<T>(dk), rows_of<T>(dv)};
  const bool by_tiles = has_tiles<T>(in.head_size);
  if constexpr (may_have_tiles<T>) {
    bool packed = true;
    for (const ops::ColumnView* x : {&in.q, &in.k, &in.v, &own_g, &dq, &dk, &dv})
      packed &= is_packed<T>(*x, in.head_size);
    if (by_tiles) backward_by_tiles<T>(in, gradients, packed);
  }
  if (!by_tiles) backward_plainly<T>(in, gradients);
  if (dbias.data != nullptr)
    launch(bias_gradient<T>, dim3(static_cast<unsigned>(in.heads * in.bias_width)), dim3(threads), 0,
           attention_of<T>(in, false), gradients, dbias.as<float>());
}

void backward(const ops::GpuAttention& in, View g, View out, View log_sums, ops::ColumnView dq,
              ops::ColumnView dk, ops::ColumnView dv, View dbias) {
  with_float(out.dtype, [&](auto* type) {
    backward_of<Pointee<decltype(type)>>(in, g, out, log_sums, dq, dk, dv, dbias);
  });
}

void rows(View scores, View probabilities, int64_t rows, int64_t columns, float scale) {
  with_float(probabilities.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch(columns % 4 == 0 ? softmax_rows<4, T> : softmax_rows<1, T>, dim3(static_cast<unsigned>(rows)),
           dim3(threads), 0, scores.as<float>(), probabilities.as<T>(), columns, scale * log2_e);
  });
}

}  // namespace

void fill(ops::SoftmaxKernels& table) { table = {forward, backward, rows}; }

}  // namespace linnet::cuda
