// The mean of f(a)ᵀ·b over the tokens of each state, by tensor cores. A block gathers one area of a state's
// matrix over a part of the tokens, in its registers; shares of several parts are added up by a second, small
// kernel.
//
// From memory come 4·head_size bytes a token of a state, for 2·head_size² operations; rows of a and b come once
// more from the second-level cache for each further area beside and below.
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda::linear_attention {
namespace {

constexpr int stages = 4;

// A block's area of a matrix: warps side by side, each of which has Tall·16 rows and Wide·8 columns. Blocks are
// small, so that a multiprocessor holds several, and one works while another waits.
template <int WarpRows, int WarpColumns, int Tall, int Wide>
struct Area {
  static constexpr int warp_rows = WarpRows, warp_columns = WarpColumns, tall = Tall, wide = Wide;
  static constexpr int totals =
      (Tall + WarpColumns - 1) / WarpColumns;  // tiles of the total that a warp sums up
  static constexpr int threads = WarpRows * WarpColumns * warp_size;
  static constexpr int together = (Tall * Wide > 18 ? 384 : 512) / threads;  // blocks on a multiprocessor
  static constexpr int rows = WarpRows * 16 * Tall, columns = WarpColumns * 8 * Wide;
  // A token's row of a and that of b are one row of a stage, which so many neighbouring threads copy.
  static constexpr int packs = (rows + columns) / 8, copiers = packs <= 8 ? 8 : packs <= 16 ? 16 : 32;
  static constexpr int stage_row = rows + columns + padding, stage = stage_depth * stage_row;  // elements
  static constexpr int extra_row = stage_depth + padding, extra = 4 * extra_row;               // thirds of e
  // Behind the ring: what is known of the tokens of two stages.
  static constexpr int extras_at = stages * stage * static_cast<int>(sizeof(bf16));
  static constexpr int weights_at = extras_at + 2 * extra * static_cast<int>(sizeof(bf16));
  static constexpr size_t bytes = weights_at + 2 * stage_depth * sizeof(float);
  static_assert(packs <= 32 && stage_depth % (threads / copiers) == 0);
  static_assert(rows * (columns + padding) <= stages * stage, "results leave through the ring");
};

// body(the Area for heads of this size): a whole number of areas makes a head of the usual sizes.
template <class Body>
auto with_area(int64_t head_size, Body&& body) {
  if (head_size <= 32) return body(Area<2, 2, 1, 2>());
  if (head_size <= 64) return body(Area<2, 2, 2, 4>());
  if (head_size > 96 && head_size <= 128) return body(Area<4, 2, 2, 8>());
  if (head_size <= 192) return body(Area<2, 2, 3, 6>());
  if (head_size <= 256) return body(Area<4, 2, 2, 8>());
  return body(Area<2, 2, 3, 9>());
}

template <class T>
struct GatherTiles {
  const T *a, *b;
  int a_stride, b_stride;
  const float *w, *e;
  T* matrix;
  float *total, *shares;  // shares: null if there is one part
  int tokens, heads, head_size, parts, part_tokens;
  bool mapped;
};

// Of a token: its weight, and its part in the total.
struct TokenValues {
  float w, e;
};

template <class T, class Area, bool Weighted>
struct GatherBlock : Area {
  using Area::stage_row, Area::extra_row, Area::tall, Area::wide, Area::totals, Area::stage;

  __device__ GatherBlock(const GatherTiles<T>& in_, char* shared)
      : in(in_), ring(static_cast<T*>(static_cast<void*>(shared))),
        extras(static_cast<T*>(static_cast<void*>(shared + Area::extras_at))),
        weights(static_cast<float*>(static_cast<void*>(shared + Area::weights_at))) {
    const int down = (in.head_size + Area::rows - 1) / Area::rows;
    const int across = (in.head_size + Area::columns - 1) / Area::columns;
    int task = static_cast<int>(blockIdx.x);
    first_row = task % down * Area::rows;
    task /= down;
    first_column = task % across * Area::columns;
    task /= across;
    part = task % in.parts;
    state = task / in.parts;
    begin = part * in.part_tokens;
    end = min(in.tokens, begin + in.part_tokens);
    lane = threadIdx.x % warp_size;
    warp_row = threadIdx.x / warp_size % Area::warp_rows;
    warp_column = threadIdx.x / warp_size / Area::warp_rows;
    begin_copies();
  }

  // Which pack of its tokens' rows this thread copies, and from where.
  __device__ void begin_copies() {
    const int column = static_cast<int>(threadIdx.x) % Area::copiers * 8;
    copied_row = static_cast<int>(threadIdx.x) / Area::copiers;
    copies = column < Area::rows + Area::columns;
    const bool of_a = column < Area::rows;
    const int in_head = of_a ? first_row + column : first_column + column - Area::rows;
    stride = of_a ? in.a_stride : in.b_stride;
    from = rows_of(of_a ? in.a : in.b, stride, state, in.heads, in.tokens, in.head_size) + in_head +
           static_cast<int64_t>(begin + copied_row) * stride;
    last_row = in_head < in.head_size ? end : begin;
    to = ring + copied_row * stage_row + column;
  }

  // Of each step, in order.
  __device__ void load(int step) {
    constexpr int at_once = Area::threads / Area::copiers;
    const int token = begin + step * stage_depth, left = last_row - token - copied_row;
    if (copies && token < end) {
#pragma unroll
      for (int row = 0; row < stage_depth; row += at_once)
        copy_16(to + step % stages * stage + row * stage_row, from + row * stride, row < left);
      from += stage_depth * stride;
    }
    commit_copies();
  }

  // Beyond the end they are 0, and so is what a token there would add to a total.
  __device__ TokenValues look_ahead(int step) const {
    const int t = begin + step * stage_depth + static_cast<int>(threadIdx.x);
    if (threadIdx.x >= stage_depth || t >= end) return {0, 0};
    const int64_t at = static_cast<int64_t>(state) * in.tokens + t;
    return {Weighted ? in.w[at] : 1.0f, in.e ? in.e[at] : 1.0f};
  }

  __device__ T* extra_of(int step) const { return extras + step % 2 * Area::extra; }
  __device__ float* weights_of(int step) const { return weights + step % 2 * stage_depth; }

  __device__ void share(int step, const TokenValues& values) const {
    if (threadIdx.x >= stage_depth) return;
    put_thirds(values.e, extra_of(step) + threadIdx.x, extra_row);
    if (Weighted) weights_of(step)[threadIdx.x] = values.w;
  }

  __device__ void clear_extras() const {
    for (int i = threadIdx.x; i < 2 * Area::extra; i += Area::threads) extras[i] = T{0};
    __syncthreads();
  }

  // f(a)ᵀ·w for 16 tokens from k on.
  __device__ void load_left(const T* left_at, int step, int k, unsigned (&left)[tall][4]) const {
#pragma unroll
    for (int m = 0; m < tall; ++m) {
      load_tiles_transposed(left[m], left_at + k * stage_row + 16 * m);
#pragma unroll
      for (int i = 0; i < 4; ++i) left[m][i] = features<T>(left[m][i], in.mapped);
    }
    if constexpr (Weighted) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* of_tokens = weights_of(step) + k + 8 * half + 2 * (lane % 4);
        const float first = of_tokens[0], second = of_tokens[1];
#pragma unroll
        for (int m = 0; m < tall; ++m)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            const float2 x = unpack<T>(left[m][i]);
            left[m][i] = pack<T>(x.x * first, x.y * second);
          }
      }
    }
  }

  __device__ void multiply(int step, float (&sums)[tall][wide][4], float (&total)[totals][4]) const {
    const T* stage_at = ring + step % stages * stage;
    const T* left_at =
        stage_at + (lane / 16 * 8 + lane % 8) * stage_row + warp_row * 16 * tall + lane / 8 % 2 * 8;
    const T* right_at = stage_at + lane % 16 * stage_row + Area::rows + warp_column * 8 * wide;
#pragma unroll
    for (int k = 0; k < stage_depth; k += 16) {
      unsigned left[tall][4], thirds[2];
      load_left(left_at, step, k, left);
      load_thirds(thirds, extra_of(step) + k, extra_row);
#pragma unroll
      for (int i = 0; i < totals; ++i) {
        unsigned chosen[4];
        choose(chosen, left, tile_of_total(i));
        mma<T>(total[i], chosen, thirds);
      }
      multiply_fragments<T, tall, wide>(
          left,
          [&](unsigned(&pairs)[4], int n) {
            load_tiles_transposed(pairs, right_at + k * stage_row + 8 * n + (n + 1 < wide ? lane / 16 * 8 : 0));
          },
          sums);
    }
  }

  // Which of its m-tiles' totals a warp sums up; those beyond are no-one's.
  __device__ int tile_of_total(int i) const { return warp_column + i * Area::warp_columns; }

  __device__ void store_total(const float (&sums)[totals][4], float* total, float scale) const {
#pragma unroll
    for (int i = 0; i < totals; ++i) {
      const float upper = quad_sum(sums[i][0] + sums[i][1]), lower = quad_sum(sums[i][2] + sums[i][3]);
      const int row = first_row + (warp_row * tall + tile_of_total(i)) * 16 + lane / 4;
      if (first_column > 0 || tile_of_total(i) >= tall || lane % 4 != 0) continue;
      if (row < in.head_size) total[row] = upper * scale;
      if (row + 8 < in.head_size) total[row + 8] = lower * scale;
    }
  }

  __device__ void store_share(const float (&sums)[tall][wide][4], const float (&total)[totals][4]) const {
    const int n = in.head_size;
    float* share = in.shares + (static_cast<int64_t>(state) * in.parts + part) * (n + 1) * n;
    store_total(total, share + static_cast<int64_t>(n) * n, 1.0f);
#pragma unroll
    for (int m = 0; m < tall; ++m)
#pragma unroll
      for (int j = 0; j < wide; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_row + (warp_row * tall + m) * 16 + lane / 4 + 8 * half;
          const int column = first_column + (warp_column * wide + j) * 8 + 2 * (lane % 4);
          if (row < n && column < n)
            store_pack(share + static_cast<int64_t>(row) * n + column,
                       Pack<float, 2>{{sums[m][j][2 * half], sums[m][j][2 * half + 1]}});
        }
  }

  // Through shared memory, so that whole rows are written.
  __device__ void store_matrix(const float (&sums)[tall][wide][4], const float (&total)[totals][4]) const {
    const float scale = 1.0f / static_cast<float>(in.tokens);
    store_total(total, in.total + static_cast<int64_t>(state) * in.head_size, scale);
    __syncthreads();
#pragma unroll
    for (int m = 0; m < tall; ++m)
#pragma unroll
      for (int j = 0; j < wide; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = (warp_row * tall + m) * 16 + lane / 4 + 8 * half;
          const int column = (warp_column * wide + j) * 8 + 2 * (lane % 4);
          pair_at(ring + row * result_row + column) =
              pack<T>(sums[m][j][2 * half] * scale, sums[m][j][2 * half + 1] * scale);
        }
    __syncthreads();
    store_rows<Area::threads, Area::rows, Area::columns>(
        ring, result_row,
        in.matrix + (static_cast<int64_t>(state) * in.head_size + first_row) * in.head_size + first_column,
        in.head_size, in.head_size - first_row, in.head_size - first_column);
  }

  static constexpr int result_row = Area::columns + padding;
  const GatherTiles<T>& in;
  T *ring, *extras;
  float* weights;
  int first_row, first_column, part, state, begin, end, lane, warp_row, warp_column;
  // What this thread copies next.
  const T* from;
  T* to;
  int stride, copied_row, last_row;
  bool copies;
};

template <class T, class Area, bool Weighted>
__global__ void __launch_bounds__(Area::threads, Area::together) gather_tiles(GatherTiles<T> in) {
  if (!products_built) return;
  LINNET_DYNAMIC_SHARED(shared);
  GatherBlock<T, Area, Weighted> block(in, shared);
  float sums[Area::tall][Area::wide][4] = {}, total[Area::totals][4] = {};
  const int steps = (block.end - block.begin + stage_depth - 1) / stage_depth;
  for (int step = 0; step < stages - 1; ++step) block.load(step);
  TokenValues next = block.look_ahead(0);
  block.clear_extras();
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<stages - 2>();
    block.share(step, next);
    __syncthreads();
    block.load(step + stages - 1);
    next = block.look_ahead(step + 1);
    block.multiply(step, sums, total);
  }
  wait_for_copies<0>();
  if (in.shares)
    block.store_share(sums, total);
  else
    block.store_matrix(sums, total);
}

template <class T, class Area>
void launch_gather(const Shape& shape, const Gather& step) {
  const int64_t blocks =
      shape.states() * divide_up(shape.head_size, Area::rows) * divide_up(shape.head_size, Area::columns);
  const int64_t wanted = parts_of(shape.tokens, blocks, Area::together);
  const int64_t part_tokens = divide_up(shape.tokens, wanted), parts = divide_up(shape.tokens, part_tokens);
  GatherTiles<T> in{step.a.view.as<T>() + step.a.first,
                    step.b.view.as<T>() + step.b.first,
                    static_cast<int>(step.a.stride),
                    static_cast<int>(step.b.stride),
                    step.w,
                    step.e,
                    static_cast<T*>(step.matrix),
                    step.total,
                    nullptr,
                    static_cast<int>(shape.tokens),
                    static_cast<int>(shape.heads),
                    static_cast<int>(shape.head_size),
                    static_cast<int>(parts),
                    static_cast<int>(part_tokens),
                    shape.mapped};
  const dim3 grid(static_cast<unsigned>(blocks * parts));
  const auto kernel = step.w ? gather_tiles<T, Area, true> : gather_tiles<T, Area, false>;
  if (parts == 1) return launch(kernel, grid, dim3(Area::threads), Area::bytes, in);
  const Scratch shares(static_cast<size_t>(shape.states() * parts * (shape.head_size + 1) * shape.head_size) *
                       sizeof(float));
  in.shares = shares.as<float>();
  launch(kernel, grid, dim3(Area::threads), Area::bytes, in);
  add_shares(shape, in.shares, parts, in.matrix, in.total);
}

}  // namespace

size_t gather_bytes(int64_t head_size) {
  return with_area(head_size, [](auto area) { return decltype(area)::bytes; });
}

void gather_by_tiles(const Shape& shape, const Gather& step) {
  with_half(shape.dtype, [&](auto* type) {
    with_area(shape.head_size,
              [&](auto area) { launch_gather<Pointee<decltype(type)>, decltype(area)>(shape, step); });
  });
}

}  // namespace linnet::cuda::linear_attention
