// Softmax attention by tensor cores, backward. With P the shares and D = P∘(G·Vᵀ − Σ g·out):
//   dv = Pᵀ·G, dk = scale·Dᵀ·Q by blocks of 64 keys, which go over the queries;
//   dq = scale·D·K by blocks of 64 or 128 queries, which go over the keys.
// The first compute the transposes Pᵀ and Dᵀ, so that both are left operands as they come out.
#include "ops/softmax_tiles_cuda.cuh"

namespace linnet::cuda::softmax {
namespace {

// 8 bytes to shared memory, as copy_16 does.
__device__ __forceinline__ void copy_sums(RowSums* shared, const RowSums* global, bool wanted) {
#if defined(LINNET_CUDA_EMULATED) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 800
  *shared = wanted ? *global : RowSums{0, 0};
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;\n" ::"r"(shared_address(shared)), "l"(global),
               "r"(wanted ? 8 : 0)
               : "memory");
#endif
}

// Two stages of two tiles, or two tiles of the block's own rows.
template <int Tile, int Own>
constexpr int rows_in_shared = 4 * Tile > 2 * Own ? 4 * Tile : 2 * Own;

// Two tiles of the block's own rows, by way of shared memory.
template <class T, int Width, int R>
__device__ __forceinline__ void load_own(unsigned (&a)[R][Layout<Width>::steps][4],
                                         unsigned (&b)[R][Layout<Width>::steps][4], T* tiles,
                                         const Rows<const T>& from_a, const Rows<const T>& from_b, int rows,
                                         int head_size, bool packed) {
  constexpr int own = 16 * R * tile_warps, pitch = Layout<Width>::pitch;
  fetch_rows<T, Width, own>(tiles, from_a, rows, head_size, packed);
  fetch_rows<T, Width, own>(tiles + own * pitch, from_b, rows, head_size, packed);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  load_left<T, Width, R>(a, tiles);
  load_left<T, Width, R>(b, tiles + own * pitch);
  __syncthreads();
}

template <class T, int Width, int Queries>
__global__ void __launch_bounds__(tile_threads, 2)
    key_gradients(Attention<T> in, Gradients<T> gradients, int blocks) {
  constexpr int own = 16 * tile_warps, pitch = Layout<Width>::pitch, behind = rows_in_shared<Queries, own>;
  if (!can_multiply<T>()) return;
  LINNET_DYNAMIC_SHARED(shared);
  T* const tiles = seen_as<T>(shared);  // two stages of q and g, and behind them of their sums
  auto* const sums = seen_as<RowSums>(tiles + behind * pitch);
  const Part part = part_of(in, blocks);
  const int first = part.block * own, column = part.head * in.head_size;
  if (first >= part.keys) return;
  const Rows<const T> q = in.q.from(part.first_query, column), g = gradients.g.from(part.first_query, column);
  const RowSums* const head_sums = gradients.sums + part.head * in.queries + part.first_query;
  const auto queries_at = [&](int tile) { return tiles + tile % 2 * 2 * Queries * pitch; };
  const auto sums_at = [&](int tile) { return sums + tile % 2 * Queries; };
  const auto fetch = [&](int tile) {
    const int begin = tile * Queries, rows = part.queries - begin;
    T* const to = queries_at(tile);
    fetch_rows<T, Width, Queries>(to, q.from(begin, 0), rows, in.head_size, in.packed);
    fetch_rows<T, Width, Queries>(to + Queries * pitch, g.from(begin, 0), rows, in.head_size, in.packed);
    if (const int i = threadIdx.x; i < Queries) copy_sums(sums_at(tile) + i, head_sums + begin + i, i < rows);
    commit_copies();
  };

  unsigned k[1][Layout<Width>::steps][4], v[1][Layout<Width>::steps][4];
  load_own<T, Width, 1>(k, v, tiles, in.k.from(part.first_key + first, column),
                        in.v.from(part.first_key + first, column), part.keys - first, in.head_size, in.packed);
  const Factors factors = factors_of(in);
  float dk[1][Layout<Width>::tiles][4] = {}, dv[1][Layout<Width>::tiles][4] = {};
  const int count = (part.queries + Queries - 1) / Queries;
  if (count > 0) fetch(0);
  for (int tile = 0; tile < count; ++tile) {
    wait_for_copies<0>();
    __syncthreads();
    if (tile + 1 < count) fetch(tile + 1);
    const T *const q_tile = queries_at(tile), *const g_tile = q_tile + Queries * pitch;
    const auto* const tile_sums = seen_as<Pack<RowSums, 2>>(sums_at(tile) + column_in_tile(0));
    float p[1][Queries / 8][4], d[1][Queries / 8][4];
    unsigned left[1][Queries / 16][4];
    multiply_transposed<T, Width, Queries, 1>(p, k, q_tile);
    if (factors.always || (tile + 1) * Queries > part.queries)
      adjust<true>(p, in, part, factors.before, first + first_of_warp<1>(), tile * Queries, part.queries);
#pragma unroll
    for (int j = 0; j < Queries / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        p[0][j][e] = exp_2(fmaf(p[0][j][e], factors.after, -tile_sums[4 * j].at[e % 2].log_sum));
    as_left<T>(left, p);
    multiply<T, Width, Queries, 1>(dv, left, g_tile);
    multiply_transposed<T, Width, Queries, 1>(d, v, g_tile);
#pragma unroll
    for (int j = 0; j < Queries / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) d[0][j][e] = p[0][j][e] * (d[0][j][e] - tile_sums[4 * j].at[e % 2].g_out);
    as_left<T>(left, d);
    multiply<T, Width, Queries, 1>(dk, left, q_tile);
  }

  __syncthreads();  // the tiles have been read
  put_rows<T, Width, 1>(tiles, dk, [&](int, int) { return in.scale; });
  put_rows<T, Width, 1>(tiles + own * pitch, dv, [](int, int) { return 1.0f; });
  __syncthreads();
  const int rows = part.keys - first;
  store_rows<T, Width, own>(tiles, gradients.dk.from(part.first_key + first, column), rows, in.head_size,
                            in.packed);
  store_rows<T, Width, own>(tiles + own * pitch, gradients.dv.from(part.first_key + first, column), rows,
                            in.head_size, in.packed);
}

// dq += D·K of Keys keys, with their values so many elements behind them.
template <class T, int Width, int R, int Keys, class Adjust>
__device__ __forceinline__ void add_query_gradients(float (&dq)[R][Layout<Width>::tiles][4],
                                                    const unsigned (&q)[R][Layout<Width>::steps][4],
                                                    const unsigned (&g)[R][Layout<Width>::steps][4],
                                                    const RowSums (&sums)[R][2], const T* k, int values_behind,
                                                    Adjust adjust_scores, float factor) {
  float p[R][Keys / 8][4], d[R][Keys / 8][4];
  multiply_transposed<T, Width, Keys, R>(p, q, k);
  multiply_transposed<T, Width, Keys, R>(d, g, k + values_behind);
  adjust_scores(p);
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int j = 0; j < Keys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const RowSums row = sums[r][e / 2];
        d[r][j][e] = exp_2(fmaf(p[r][j][e], factor, -row.log_sum)) * (d[r][j][e] - row.g_out);
      }
  unsigned left[R][Keys / 16][4];
  as_left<T>(left, d);
  multiply<T, Width, Keys, R>(dq, left, k);
}

template <class T, int Width, int R, int Keys, int Step>
__global__ void __launch_bounds__(tile_threads, 2)
    query_gradients(Attention<T> in, Gradients<T> gradients, int blocks) {
  constexpr int own = 16 * R * tile_warps, pitch = Layout<Width>::pitch;
  if (!can_multiply<T>()) return;
  LINNET_DYNAMIC_SHARED(shared);
  T* const tiles = seen_as<T>(shared);  // two stages of keys and values
  const Part part = part_of(in, blocks);
  const int first = part.block * own, column = part.head * in.head_size;
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

  const int64_t row = part.first_query + first;
  unsigned q[R][Layout<Width>::steps][4], g[R][Layout<Width>::steps][4];
  load_own<T, Width, R>(q, g, tiles, in.q.from(row, column), gradients.g.from(row, column),
                        part.queries - first, in.head_size, in.packed);
  RowSums sums[R][2];
#pragma unroll
  for (int i = 0; i < 2 * R; ++i) {
    const int own_row = first_of_warp<R>() + 8 * i + row_in_tile(0);
    const bool exists = first + own_row < part.queries;
    sums[i / 2][i % 2] = exists ? gradients.sums[part.head * in.queries + row + own_row] : RowSums{0, 0};
  }
  const Factors factors = factors_of(in);
  float dq[R][Layout<Width>::tiles][4] = {};
  const int count = (part.keys + Keys - 1) / Keys;
  fetch(0);
  for (int tile = 0; tile < count; ++tile) {
    wait_for_copies<0>();
    __syncthreads();
    if (tile + 1 < count) fetch(tile + 1);
#pragma unroll 1
    for (int step = 0; step < Keys; step += Step)
      add_query_gradients<T, Width, R, Step>(
          dq, q, g, sums, keys_at(tile) + step * pitch, Keys * pitch,
          [&](auto& scores) {
            if (factors.always || tile * Keys + step + Step > part.keys)
              adjust<false>(scores, in, part, factors.before, first + first_of_warp<R>(), tile * Keys + step,
                            part.keys);
          },
          factors.after);
  }

  __syncthreads();  // the tiles have been read
  put_rows<T, Width, R>(tiles, dq, [&](int, int) { return in.scale; });
  __syncthreads();
  store_rows<T, Width, own>(tiles, gradients.dq.from(row, column), part.queries - first, in.head_size,
                            in.packed);
}

template <class T, int Width>
void start_keys(const ops::GpuAttention& in, const Gradients<T>& gradients, bool packed) {
  constexpr int own = 16 * tile_warps, queries = Width <= 72 ? 64 : 16;
  constexpr size_t bytes =
      rows_in_shared<queries, own> * Layout<Width>::pitch * sizeof(T) + 2 * queries * sizeof(RowSums);
  const int64_t blocks = divide_up(in.longest_keys, own);
  launch(key_gradients<T, Width, queries>, grid_of(in, blocks), dim3(tile_threads), bytes,
         attention_of<T>(in, packed), gradients, static_cast<int>(blocks));
}

template <class T, int Width, int R>
void start_queries(const ops::GpuAttention& in, const Gradients<T>& gradients, bool packed) {
  constexpr int own = 16 * R * tile_warps, keys = Width <= 72 ? 64 : 32, step = Width == 72 && R == 2 ? 16 : 32;
  constexpr size_t bytes = rows_in_shared<keys, own> * Layout<Width>::pitch * sizeof(T);
  const int64_t blocks = divide_up(in.longest_queries, own);
  launch(query_gradients<T, Width, R, keys, step>, grid_of(in, blocks), dim3(tile_threads), bytes,
         attention_of<T>(in, packed), gradients, static_cast<int>(blocks));
}

}  // namespace

template <class T>
void backward_by_tiles(const ops::GpuAttention& in, const Gradients<T>& gradients, bool packed) {
  with_width(in.head_size, [&](auto width) {
    start_keys<T, width()>(in, gradients, packed);
    if constexpr (width() <= 72)
      if (fills_large_blocks(in)) return start_queries<T, width(), 2>(in, gradients, packed);
    start_queries<T, width(), 1>(in, gradients, packed);
  });
}

template void backward_by_tiles<bf16>(const ops::GpuAttention&, const Gradients<bf16>&, bool);
template void backward_by_tiles<f16>(const ops::GpuAttention&, const Gradients<f16>&, bool);

}  // namespace linnet::cuda::softmax
