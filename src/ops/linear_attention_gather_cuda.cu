// The mean of f(a)ᵀ·b over the tokens of each state, by tensor cores. A block gathers some rows of a state's
// matrix over a part of the tokens, in its registers; shares of several parts are added up by a second, small
// kernel.
//
// From memory come 4·head_size bytes a token of a state, for 2·head_size² operations; b comes once more from
// the second-level cache for every block of rows beyond a state's first.
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda::linear_attention {
namespace {

// Rows of a matrix that a block gathers, in 16s a warp: a whole number of blocks makes a head of 192, 256 or
// 288.
constexpr int tall_for(int wide) { return wide <= 4 ? wide : wide % 3 == 0 ? 3 : 4; }

template <class T>
struct GatherTiles {
  const T *a, *b;
  int64_t a_stride, b_stride;
  const float *w, *e;
  T* matrix;
  float *total, *shares;  // shares: null if there is one part
  int tokens, heads, head_size, parts, part_tokens, stages;
  bool mapped;
};

template <class T, int Wide>
struct GatherBlock {
  static constexpr int tall = tall_for(Wide);
  static constexpr int rows = warp_rows * 16 * tall, columns = warp_columns * 8 * Wide;
  static constexpr int a_row = rows + padding, b_row = columns + padding;
  static constexpr int stage = stage_depth * (a_row + b_row);  // elements

  __device__ explicit GatherBlock(const GatherTiles<T>& in_, char* shared)
      : in(in_), ring(static_cast<T*>(static_cast<void*>(shared))) {
    const int row_blocks = (in.head_size + rows - 1) / rows;
    first_row = static_cast<int>(blockIdx.x % row_blocks) * rows;
    const int task = static_cast<int>(blockIdx.x / row_blocks);
    part = task % in.parts;
    state = task / in.parts;
    begin = part * in.part_tokens;
    end = min(in.tokens, begin + in.part_tokens);
    a = rows_of(in.a, in.a_stride, state, in.heads, in.tokens, in.head_size) + first_row;
    b = rows_of(in.b, in.b_stride, state, in.heads, in.tokens, in.head_size);
    w = in.w ? in.w + static_cast<int64_t>(state) * in.tokens : nullptr;
    e = in.e ? in.e + static_cast<int64_t>(state) * in.tokens : nullptr;
    lane = threadIdx.x % warp_size;
    warp_row = threadIdx.x / warp_size % warp_rows;
    warp_column = threadIdx.x / warp_size / warp_rows;
  }

  __device__ void load(int step) const {
    const int token = begin + step * stage_depth;
    T* to = ring + step % in.stages * stage;
    if (token < end) {
      copy_tile<stage_depth, rows>(to, a_row, a + token * in.a_stride, in.a_stride, end - token,
                                   in.head_size - first_row);
      copy_tile<stage_depth, columns>(to + stage_depth * a_row, b_row, b + token * in.b_stride, in.b_stride,
                                      end - token, in.head_size);
    }
    commit_copies();
  }

  // A value for token t; beyond the end it is 0, and so is what a token there would add to a total.
  __device__ float of_token(const float* values, int t) const {
    return t < end ? (values ? values[t] : 1.0f) : 0.0f;
  }

  // f(a)ᵀ·w for 16 tokens from `token` on.
  __device__ void load_left(const T* from, int token, unsigned (&left)[tall][4]) const {
    const int pair = 2 * (lane % 4);
    from += (lane / 16 * 8 + lane % 8) * a_row + warp_row * 16 * tall + lane / 8 % 2 * 8;
#pragma unroll
    for (int m = 0; m < tall; ++m) {
      load_tiles_transposed(left[m], from + 16 * m);
      if (in.mapped) {
#pragma unroll
        for (int i = 0; i < 4; ++i) left[m][i] = features<T>(left[m][i]);
      }
    }
    if (w == nullptr) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = token + 8 * half + pair;
      const float first = of_token(w, t), second = of_token(w, t + 1);
#pragma unroll
      for (int m = 0; m < tall; ++m)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          const float2 x = unpack<T>(left[m][i]);
          left[m][i] = pack<T>(x.x * first, x.y * second);
        }
    }
  }

  // Columns of e for 16 tokens.
  __device__ void load_extra(int token, unsigned (&extra)[2]) const {
    const int t = token + 2 * (lane % 4), which = lane / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      extra[half] = pack<T>(third_of<T>(of_token(e, t + 8 * half), which),
                            third_of<T>(of_token(e, t + 8 * half + 1), which));
  }

  __device__ void multiply(int step, float (&sums)[tall][Wide][4], float (&total)[4]) const {
    const T* from = ring + step % in.stages * stage;
    const T* right =
        from + stage_depth * a_row + (lane / 8 % 2 * 8 + lane % 8) * b_row + warp_column * 8 * Wide;
    const int across = lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < stage_depth; k += 16) {
      const int token = begin + step * stage_depth + k;
      unsigned left[tall][4], extra[2];
      load_left(from + k * a_row, token, left);
      if (warp_column < tall) {
        load_extra(token, extra);
#pragma unroll
        for (int m = 0; m < tall; ++m)
          if (m == warp_column) mma<T>(total, left[m], extra);
      }
      multiply_fragments<T, tall, Wide>(
          left,
          [&](unsigned(&pairs)[4], int n) {
            load_tiles_transposed(pairs, right + k * b_row + 8 * n + (n + 1 < Wide ? across : 0));
          },
          sums);
    }
  }

  // Of the rows of its m-tile, warp_column.
  __device__ void store_total(const float (&sums)[4], float* total, float scale) const {
    const float upper = quad_sum(sums[0] + sums[1]), lower = quad_sum(sums[2] + sums[3]);
    const int row = first_row + (warp_row * tall + warp_column) * 16 + lane / 4;
    if (warp_column >= tall || lane % 4 != 0) return;
    if (row < in.head_size) total[row] = upper * scale;
    if (row + 8 < in.head_size) total[row + 8] = lower * scale;
  }

  __device__ void store_share(const float (&sums)[tall][Wide][4], const float (&total)[4]) const {
    const int n = in.head_size;
    float* share = in.shares + (static_cast<int64_t>(state) * in.parts + part) * (n + 1) * n;
    store_total(total, share + static_cast<int64_t>(n) * n, 1.0f);
#pragma unroll
    for (int m = 0; m < tall; ++m)
#pragma unroll
      for (int j = 0; j < Wide; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_row + (warp_row * tall + m) * 16 + lane / 4 + 8 * half;
          const int column = (warp_column * Wide + j) * 8 + 2 * (lane % 4);
          if (row < n && column < n)
            store_pack(share + static_cast<int64_t>(row) * n + column,
                       Pack<float, 2>{{sums[m][j][2 * half], sums[m][j][2 * half + 1]}});
        }
  }

  // Through shared memory, so that whole rows are written.
  __device__ void store_matrix(const float (&sums)[tall][Wide][4], const float (&total)[4]) const {
    const float scale = 1.0f / static_cast<float>(in.tokens);
    store_total(total, in.total + static_cast<int64_t>(state) * in.head_size, scale);
    __syncthreads();
#pragma unroll
    for (int m = 0; m < tall; ++m)
#pragma unroll
      for (int j = 0; j < Wide; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = (warp_row * tall + m) * 16 + lane / 4 + 8 * half;
          const int column = (warp_column * Wide + j) * 8 + 2 * (lane % 4);
          pair_at(ring + row * b_row + column) =
              pack<T>(sums[m][j][2 * half] * scale, sums[m][j][2 * half + 1] * scale);
        }
    __syncthreads();
    store_tile<rows, columns>(
        ring, b_row, in.matrix + (static_cast<int64_t>(state) * in.head_size + first_row) * in.head_size,
        in.head_size, in.head_size - first_row, in.head_size);
  }

  const GatherTiles<T>& in;
  T* ring;
  const T *a, *b;
  const float *w, *e;
  int first_row, part, state, begin, end, lane, warp_row, warp_column;
};

template <class T, int Wide>
__global__ void __launch_bounds__(tile_threads) gather_tiles(GatherTiles<T> in) {
  if (!tiles_built) return;
  LINNET_DYNAMIC_SHARED(shared);
  using Block = GatherBlock<T, Wide>;
  const Block block(in, shared);
  float sums[Block::tall][Wide][4] = {}, total[4] = {};
  const int steps = (block.end - block.begin + stage_depth - 1) / stage_depth;
  for (int step = 0; step < in.stages - 1; ++step) block.load(step);
  for (int step = 0; step < steps; ++step) {
    wait_for_stage(in.stages);
    __syncthreads();
    block.load(step + in.stages - 1);
    block.multiply(step, sums, total);
  }
  wait_for_copies<0>();
  if (in.shares)
    block.store_share(sums, total);
  else
    block.store_matrix(sums, total);
}

template <class T, int Wide>
void launch_gather(const Shape& shape, const Gather& step) {
  using Block = GatherBlock<T, Wide>;
  const SharedPlan plan = plan_gather(Wide);
  const int64_t blocks = shape.states() * divide_up(shape.head_size, Block::rows);
  const int64_t wanted = parts_of(shape.tokens, blocks);
  const int64_t part_tokens = divide_up(shape.tokens, wanted), parts = divide_up(shape.tokens, part_tokens);
  GatherTiles<T> in{step.a.view.as<T>() + step.a.first,
                    step.b.view.as<T>() + step.b.first,
                    step.a.stride,
                    step.b.stride,
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
                    plan.stages,
                    shape.mapped};
  const dim3 grid(static_cast<unsigned>(blocks * parts));
  if (parts == 1) return launch(gather_tiles<T, Wide>, grid, dim3(tile_threads), plan.bytes, in);
  const Scratch shares(static_cast<size_t>(shape.states() * parts * (shape.head_size + 1) * shape.head_size) *
                       sizeof(float));
  in.shares = shares.as<float>();
  launch(gather_tiles<T, Wide>, grid, dim3(tile_threads), plan.bytes, in);
  add_shares(shape, in.shares, parts, in.matrix, in.total);
}

}  // namespace

SharedPlan plan_gather(int wide) {
  const auto rows = static_cast<size_t>(warp_rows * 16 * tall_for(wide)),
             columns = static_cast<size_t>(warp_columns * 8 * wide);
  return plan_shared(stage_depth * (rows + columns + 2 * padding) * sizeof(bf16),
                     rows * (columns + padding) * sizeof(bf16), 0, false);
}

void gather_by_tiles(const Shape& shape, const Gather& step) {
  with_half(shape.dtype, [&](auto* type) {
    with_wide(shape.head_size,
              [&](auto wide) { launch_gather<Pointee<decltype(type)>, decltype(wide)::value>(shape, step); });
  });
}

}  // namespace linnet::cuda::linear_attention
