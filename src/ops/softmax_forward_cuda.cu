// Softmax attention by tensor cores, forward. A block of threads has 64 or 128 queries of one head in registers
// and goes over the keys and values of their sequence, a tile of which is copied while the one before is
// worked on.
#include "ops/softmax_tiles_cuda.cuh"

namespace linnet::cuda::softmax {
namespace {

/// The largest score of each of this thread's rows so far, and this thread's share of the row's sum of
/// exponentials.
template <int R>
struct Running {
  float most[R][2], sum[R][2];
};

__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(all_lanes, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(all_lanes, x, 1);
  return x + __shfl_xor_sync(all_lanes, x, 2);
}

/// Scores to exponentials; `result` and the sums so far are scaled to the new maximum.
template <int R, int Tiles, int Columns>
__device__ __forceinline__ void exponentiate(float (&scores)[R][Tiles][4], float (&result)[R][Columns][4],
                                             Running<R>& running, float factor) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = running.most[r][half];
#pragma unroll
      for (int j = 0; j < Tiles; ++j)
        most = fmaxf(most, fmaxf(scores[r][j][2 * half], scores[r][j][2 * half + 1]));
      most = row_max(most);
      const float shrink = exp_2((running.most[r][half] - most) * factor), base = -most * factor;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < Tiles; ++j)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[r][j][e] = exp_2(fmaf(scores[r][j][e], factor, base));
          sum += scores[r][j][e];
        }
      running.most[r][half] = most;
      running.sum[r][half] = fmaf(running.sum[r][half], shrink, sum);
#pragma unroll
      for (int j = 0; j < Columns; ++j) {
        result[r][j][2 * half] *= shrink;
        result[r][j][2 * half + 1] *= shrink;
      }
    }
}

/// Natural logarithms of the sums; running.sum becomes the factor that makes shares of exponentials.
template <int R>
__device__ __forceinline__ void finish(Running<R>& running, float factor, float* log_sums, int first,
                                       int queries) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_sum(running.sum[r][half]);
      const int row = first + first_of_warp<R>() + 16 * r + row_in_tile(2 * half);
      if (threadIdx.x % 4 == 0 && row < queries)
        log_sums[row] = running.most[r][half] * factor * ln_2 + logf(sum);
      running.sum[r][half] = 1.0f / sum;
    }
}

template <class T, int Width, int R, int Keys>
__global__ void __launch_bounds__(tile_threads, R == 1 && Width <= 72 ? 3 : 2)
    attend(Attention<T> in, Rows<T> out, float* log_sums, int blocks) {
  constexpr int queries = 16 * R * tile_warps, pitch = Layout<Width>::pitch;
  static_assert(queries <= 2 * Keys, "queries come by way of one stage");
  if (!can_multiply<T>()) return;
  LINNET_DYNAMIC_SHARED(shared);
  T* const tiles = seen_as<T>(shared);  // two stages of keys and values
  const Part part = part_of(in, blocks);
  const int first = part.block * queries, column = part.head * in.head_size;
  if (first >= part.queries) return;
  const Rows<const T> k = in.k.from(part.first_key, column), v = in.v.from(part.first_key, column);
  const auto keys_at = [&](int tile) { return tiles + tile % 2 * 2 * Keys * pitch; };
  const auto fetch = [&](int tile) {
    const int rows = part.keys - tile * Keys;
    T* const to = keys_at(tile);
    fetch_rows<T, Width, Keys>(to, k.from(tile * Keys, 0), rows, in.head_size, in.packed);
    fetch_rows<T, Width, Keys>(to + Keys * pitch, v.from(tile * Keys, 0), rows, in.head_size, in.packed);
    commit_copies();
  };

  fetch_rows<T, Width, queries>(keys_at(1), in.q.from(part.first_query + first, column), part.queries - first,
                                in.head_size, in.packed);
  fetch(0);
  wait_for_copies<0>();
  __syncthreads();
  unsigned left[R][Layout<Width>::steps][4];
  load_left<T, Width, R>(left, keys_at(1));

  const Factors factors = factors_of(in);
  float result[R][Layout<Width>::tiles][4] = {};
  Running<R> running;
#pragma unroll
  for (int i = 0; i < 2 * R; ++i) running.most[i / 2][i % 2] = -INFINITY, running.sum[i / 2][i % 2] = 0;
  const int count = (part.keys + Keys - 1) / Keys;
  for (int tile = 0; tile < count; ++tile) {
    wait_for_copies<0>();
    __syncthreads();
    if (tile + 1 < count) fetch(tile + 1);
    float scores[R][Keys / 8][4];
    multiply_transposed<T, Width, Keys, R>(scores, left, keys_at(tile));
    if (factors.always || (tile + 1) * Keys > part.keys)
      adjust<false>(scores, in, part, factors.before, first + first_of_warp<R>(), tile * Keys, part.keys);
    exponentiate(scores, result, running, factors.after);
    unsigned shares[R][Keys / 16][4];
    as_left<T>(shares, scores);
    multiply<T, Width, Keys, R>(result, shares, keys_at(tile) + Keys * pitch);
  }

  finish<R>(running, factors.after, log_sums + part.head * in.queries + part.first_query, first, part.queries);
  __syncthreads();  // the tiles have been read
  put_rows<T, Width, R>(tiles, result, [&](int r, int half) { return running.sum[r][half]; });
  __syncthreads();
  store_rows<T, Width, queries>(tiles, out.from(part.first_query + first, column), part.queries - first,
                                in.head_size, in.packed);
}

template <class T, int Width, int R>
void start(const ops::GpuAttention& in, View out, View log_sums) {
  constexpr int keys = Width <= 72 ? 64 : 32, queries = 16 * R * tile_warps;
  constexpr size_t bytes = 4 * keys * Layout<Width>::pitch * sizeof(T);
  const int64_t blocks = divide_up(in.longest_queries, queries);
  const ops::ColumnView result{out, in.heads * in.head_size, 0};
  bool packed = true;
  for (const ops::ColumnView* x : {&in.q, &in.k, &in.v, &result}) packed &= is_packed<T>(*x, in.head_size);
  launch(attend<T, Width, R, keys>, grid_of(in, blocks), dim3(tile_threads), bytes, attention_of<T>(in, packed),
         rows_of<T>(result), log_sums.as<float>(), static_cast<int>(blocks));
}

}  // namespace

template <class T>
void forward_by_tiles(const ops::GpuAttention& in, View out, View log_sums) {
  with_width(in.head_size, [&](auto width) {
    if constexpr (width() <= 72)
      if (fills_large_blocks(in)) return start<T, width(), 2>(in, out, log_sums);
    start<T, width(), 1>(in, out, log_sums);
  });
}

template void forward_by_tiles<bf16>(const ops::GpuAttention&, View, View);
template void forward_by_tiles<f16>(const ops::GpuAttention&, View, View);

}  // namespace linnet::cuda::softmax
