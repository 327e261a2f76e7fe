// What each token of a state gets of the state's matrix, by tensor cores: the answers to queries, f(x)·matrix,
// and gradients, x·matrixᵀ. A block takes 128 tokens and all columns of a head, so that rows of results are
// whole and what is done to them beyond the product is done at its end, in shared memory.
//
// From memory come and go 4·head_size bytes a token of a state, and 2·head_size more where the end reads
// something else, for 2·head_size² operations; the matrix comes from the second-level cache for all blocks but
// the first.
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda::linear_attention {
namespace {

constexpr int tall = 4, block_tokens = warp_rows * 16 * tall;

template <class T>
struct RowTiles {
  const T* x;
  int64_t x_stride;
  const T* matrix;
  const float* total;
  // What the end of it reads: the former y, or, of a gradient, what stands under f; null: nothing.
  const T* beside;
  int64_t beside_stride;
  T* y;
  int64_t y_stride;
  const float* inverse;
  float* result;  // 1/z, or −along
  int tokens, heads, head_size;
  SharedPlan plan;
  bool mapped;
};

// Beside the ring: the total as f32 (a gradient's) or as three rows of T (an answer's), a value of each token,
// and sums of each warp column.
template <class T, int Wide>
struct Tables {
  static constexpr int columns = warp_columns * 8 * Wide;
  float total[columns];
  T thirds[3][columns];
  float of_token[block_tokens];
  float sums[warp_columns][block_tokens];
};

constexpr size_t table_bytes(int wide) {
  const auto columns = static_cast<size_t>(warp_columns * 8 * wide);
  return columns * (sizeof(float) + 3 * sizeof(bf16)) + (1 + warp_columns) * block_tokens * sizeof(float);
}

template <class T, int Wide, bool Transposed>
struct RowBlock {
  static_assert(sizeof(Tables<T, Wide>) == table_bytes(Wide));
  static constexpr int columns = warp_columns * 8 * Wide;
  static constexpr int x_row = stage_depth + padding, tile_row = columns + padding;
  static constexpr int matrix_row = Transposed ? stage_depth + padding : columns + padding;
  static constexpr int stage =
      block_tokens * x_row + (Transposed ? columns : stage_depth) * matrix_row;  // elements
  using Sums = float[tall][Wide][4];

  __device__ RowBlock(const RowTiles<T>& in_, char* shared)
      : in(in_), ring(static_cast<T*>(static_cast<void*>(shared))),
        tile(static_cast<T*>(static_cast<void*>(shared + in.plan.tile_at))),
        tables(*static_cast<Tables<T, Wide>*>(static_cast<void*>(shared + in.plan.tables_at))) {
    const int token_blocks = (in.tokens + block_tokens - 1) / block_tokens;
    first_token = static_cast<int>(blockIdx.x % token_blocks) * block_tokens;
    state = static_cast<int>(blockIdx.x / token_blocks);
    tokens = min(block_tokens, in.tokens - first_token);
    x = row_of(in.x, in.x_stride);
    matrix = in.matrix + static_cast<int64_t>(state) * in.head_size * in.head_size;
    lane = threadIdx.x % warp_size;
    warp_row = threadIdx.x / warp_size % warp_rows;
    warp_column = threadIdx.x / warp_size / warp_rows;
  }

  template <class Element>
  __device__ Element* row_of(Element* data, int64_t stride) const {
    return rows_of(data, stride, state, in.heads, in.tokens, in.head_size) + first_token * stride;
  }
  __device__ int64_t token_at() const { return static_cast<int64_t>(state) * in.tokens + first_token; }

  __device__ void load(int step) const {
    const int k = step * stage_depth, left = in.head_size - k;
    T* to = ring + step % in.plan.stages * stage;
    if (left > 0) {
      copy_tile<block_tokens, stage_depth>(to, x_row, x + k, in.x_stride, tokens, left);
      to += block_tokens * x_row;
      if constexpr (Transposed)
        copy_tile<columns, stage_depth>(to, matrix_row, matrix + k, in.head_size, in.head_size, left);
      else
        copy_tile<stage_depth, columns>(to, matrix_row, matrix + static_cast<int64_t>(k) * in.head_size,
                                        in.head_size, left, in.head_size);
    }
    if (step == in.plan.stages - 1 && in.plan.tile_at > 0) load_beside();
    commit_copies();
  }

  __device__ void load_beside() const {
    if (in.beside)
      copy_tile<block_tokens, columns>(tile, tile_row, row_of(in.beside, in.beside_stride), in.beside_stride,
                                       tokens, in.head_size);
  }

  // What the products need; there after the first barrier.
  __device__ void fill_tables() const {
    if (in.total == nullptr) return;
    const float* total = in.total + static_cast<int64_t>(state) * in.head_size;
    for (int i = threadIdx.x; i < columns; i += tile_threads) {
      const float value = i < in.head_size ? total[i] : 0.0f;
      if constexpr (Transposed) {
        tables.total[i] = value;
      } else {
        for (int which = 0; which < 3; ++which) assign(tables.thirds[which][i], third_of<T>(value, which));
      }
    }
    const int t = static_cast<int>(threadIdx.x);
    if (Transposed && t < block_tokens)
      tables.of_token[t] = in.inverse && t < tokens ? in.inverse[token_at() + t] : 1.0f;
  }

  // The product of one stage, and f(x)·total for the tokens of this warp's 16×16 tile number warp_column.
  __device__ void multiply(int step, Sums& sums, float (&z)[4]) const {
    const T* from = ring + step % in.plan.stages * stage;
    const T* left_at = from + (warp_row * 16 * tall + lane % 16) * x_row + lane / 16 * 8;
    const T* right = from + block_tokens * x_row;
    const int across = lane / 16 * 8, along = lane / 8 % 2 * 8, row = lane % 8;
#pragma unroll
    for (int k = 0; k < stage_depth; k += 16) {
      unsigned left[tall][4];
#pragma unroll
      for (int m = 0; m < tall; ++m) {
        load_tiles(left[m], left_at + 16 * m * x_row + k);
        if (!Transposed && in.mapped) {
#pragma unroll
          for (int i = 0; i < 4; ++i) left[m][i] = features<T>(left[m][i]);
        }
      }
      if (!Transposed && in.total) add_denominators(left_at + k, step * stage_depth + k, z);
      multiply_fragments<T, tall, Wide>(
          left,
          [&](unsigned(&pairs)[4], int n) {
            const int column = warp_column * 8 * Wide + 8 * n + (n + 1 < Wide ? across : 0);
            if constexpr (Transposed)
              load_tiles(pairs, right + (column + row) * matrix_row + k + along);
            else
              load_tiles_transposed(pairs, right + (k + along + row) * matrix_row + column);
          },
          sums);
    }
  }

  // Of the warp's 16×16 tile number warp_column at k of the depth, which is read again: out of an array, by
  // that number, it would have to leave its registers.
  __device__ void add_denominators(const T* left_at, int k, float (&z)[4]) const {
    unsigned left[4], right[2] = {0, 0};
    load_tiles(left, left_at + 16 * warp_column * x_row);
    if (in.mapped)
      for (unsigned& pair : left) pair = features<T>(pair);
    const int which = lane / 4;
    if (which < 3) {
      T* from = tables.thirds[which] + k + 2 * (lane % 4);
      right[0] = pair_at(from);
      right[1] = pair_at(from + 8);
    }
    mma<T>(z, left, right);
  }

  // body(row and column in the tile, the two sums there)
  template <class Body>
  __device__ void for_pairs(const Sums& sums, Body body) const {
#pragma unroll
    for (int m = 0; m < tall; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = (warp_row * tall + m) * 16 + lane / 4 + 8 * half;
#pragma unroll
        for (int n = 0; n < Wide; ++n)
          body(row, (warp_column * Wide + n) * 8 + 2 * (lane % 4), sums[m][n][2 * half],
               sums[m][n][2 * half + 1]);
      }
  }

  __device__ unsigned& in_tile(int row, int column) const { return pair_at(tile + row * tile_row + column); }

  // After the last product: what was put off until the ring is free.
  __device__ void await_beside() const {
    if (in.plan.tile_at == 0) {
      __syncthreads();
      load_beside();
      commit_copies();
    }
    wait_for_copies<0>();
    __syncthreads();
  }

  __device__ void invert_denominators(const float (&z)[4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = (warp_row * tall + warp_column) * 16 + lane / 4 + 8 * half;
      const float inverse = 1.0f / away_from_zero(quad_sum(z[2 * half] + z[2 * half + 1]), in.mapped);
      if (lane % 4 != 0) continue;
      tables.of_token[row] = inverse;
      if (in.result && row < tokens) in.result[token_at() + row] = inverse;
    }
  }

  __device__ void finish_answer(const Sums& sums, const float (&z)[4]) const {
    if (in.total) invert_denominators(z);
    await_beside();
    for_pairs(sums, [&](int row, int column, float first, float second) {
      const float inverse = in.total ? tables.of_token[row] : 1.0f;
      unsigned& at = in_tile(row, column);
      const float2 former = in.beside ? unpack<T>(at) : make_float2(0, 0);
      at = pack<T>(fmaf(first, inverse, former.x), fmaf(second, inverse, former.y));
    });
  }

  // along of each token, to stand in tables.sums[0].
  __device__ void find_along(const Sums& sums) const {
    float dots[tall][2] = {};
#pragma unroll
    for (int m = 0; m < tall; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = (warp_row * tall + m) * 16 + lane / 4 + 8 * half;
#pragma unroll
        for (int n = 0; n < Wide; ++n) {
          const unsigned under = in_tile(row, (warp_column * Wide + n) * 8 + 2 * (lane % 4));
          const float2 f = unpack<T>(in.mapped ? features<T>(under) : under);
          dots[m][half] = fmaf(f.x, sums[m][n][2 * half], fmaf(f.y, sums[m][n][2 * half + 1], dots[m][half]));
        }
        const float dot = quad_sum(dots[m][half]);
        if (lane % 4 == 0) tables.sums[warp_column][row] = dot;
      }
    __syncthreads();
    if (threadIdx.x < block_tokens) {
      const int row = threadIdx.x;
      float dot = 0;
      for (int i = 0; i < warp_columns; ++i) dot += tables.sums[i][row];
      dot *= tables.of_token[row];
      tables.sums[0][row] = dot;
      if (row < tokens) in.result[token_at() + row] = -dot;
    }
    __syncthreads();
  }

  __device__ void finish_gradient(const Sums& sums) const {
    await_beside();
    if (in.inverse) find_along(sums);
    for_pairs(sums, [&](int row, int column, float first, float second) {
      const float inverse = tables.of_token[row], along = in.inverse ? tables.sums[0][row] : -1.0f;
      unsigned& at = in_tile(row, column);
      const float2 under = unpack<T>(at);
      const float one = inverse * (first - along * tables.total[column]);
      const float other = inverse * (second - along * tables.total[column + 1]);
      at = pack<T>(!in.mapped || under.x > 0.0f ? one : 0.0f, !in.mapped || under.y > 0.0f ? other : 0.0f);
    });
  }

  __device__ void store() const {
    __syncthreads();
    store_tile<block_tokens, columns>(tile, tile_row, row_of(in.y, in.y_stride), in.y_stride, tokens,
                                      in.head_size);
  }

  const RowTiles<T>& in;
  T *ring, *tile;
  Tables<T, Wide>& tables;
  const T *x, *matrix;
  int first_token, state, tokens, lane, warp_row, warp_column;
};

template <class T, int Wide, bool Transposed>
__global__ void __launch_bounds__(tile_threads, 1) multiply_rows(RowTiles<T> in) {
  if (!tiles_built) return;
  LINNET_DYNAMIC_SHARED(shared);
  using Block = RowBlock<T, Wide, Transposed>;
  const Block block(in, shared);
  typename Block::Sums sums = {};
  float z[4] = {};
  const int steps = (in.head_size + stage_depth - 1) / stage_depth, stages = in.plan.stages;
  for (int step = 0; step < stages - 1; ++step) block.load(step);
  block.fill_tables();
  for (int step = 0; step < steps; ++step) {
    wait_for_stage(stages);
    __syncthreads();
    block.load(step + stages - 1);
    block.multiply(step, sums, z);
  }
  if constexpr (Transposed)
    block.finish_gradient(sums);
  else
    block.finish_answer(sums, z);
  block.store();
}

template <class T, int Wide, bool Transposed>
void launch_rows(const Shape& shape, RowTiles<T> in) {
  in.tokens = static_cast<int>(shape.tokens);
  in.heads = static_cast<int>(shape.heads);
  in.head_size = static_cast<int>(shape.head_size);
  in.mapped = shape.mapped;
  in.plan = plan_rows(Wide, Transposed);
  launch(multiply_rows<T, Wide, Transposed>,
         dim3(static_cast<unsigned>(shape.states() * divide_up(shape.tokens, block_tokens))),
         dim3(tile_threads), in.plan.bytes, in);
}

template <class T>
T* first_of(const ColumnView& columns) {
  return columns.view.as<T>() + columns.first;
}

}  // namespace

SharedPlan plan_rows(int wide, bool transposed) {
  const auto columns = static_cast<size_t>(warp_columns * 8 * wide);
  const size_t rows = transposed ? columns : stage_depth, row = transposed ? stage_depth : columns;
  const size_t stage = block_tokens * (stage_depth + padding) + rows * (row + padding);
  return plan_shared(stage * sizeof(bf16), block_tokens * (columns + padding) * sizeof(bf16), table_bytes(wide),
                     true);
}

void answer_by_tiles(const Shape& shape, const Answer& step) {
  with_half(shape.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    RowTiles<T> in{};
    in.x = first_of<T>(step.x);
    in.x_stride = step.x.stride;
    in.matrix = static_cast<const T*>(step.matrix);
    in.total = step.total;
    in.y = first_of<T>(step.y);
    in.y_stride = step.y.stride;
    in.beside = step.add ? in.y : nullptr;
    in.beside_stride = in.y_stride;
    in.result = step.inverse;
    with_wide(shape.head_size, [&](auto wide) { launch_rows<T, decltype(wide)::value, false>(shape, in); });
  });
}

void gradient_by_tiles(const Shape& shape, const Gradient& step) {
  with_half(shape.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    RowTiles<T> in{};
    in.x = first_of<T>(step.x);
    in.x_stride = step.x.stride;
    in.matrix = static_cast<const T*>(step.matrix);
    in.total = step.total;
    in.beside = first_of<T>(step.under);
    in.beside_stride = step.under.stride;
    in.y = first_of<T>(step.y);
    in.y_stride = step.y.stride;
    in.inverse = step.inverse;
    in.result = step.against;
    with_wide(shape.head_size, [&](auto wide) { launch_rows<T, decltype(wide)::value, true>(shape, in); });
  });
}

}  // namespace linnet::cuda::linear_attention
