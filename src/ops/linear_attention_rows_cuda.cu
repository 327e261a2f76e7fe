// What each token of a state gets of the state's matrix, by tensor cores: the answers to queries, f(x)·matrix,
// and gradients, x·matrixᵀ. A block takes 64 tokens, whose x it holds, and all columns of a head, so that rows
// of results are whole and what is done to them beyond the product is done at its end, in shared memory; the
// matrix streams by. Two blocks share a multiprocessor, so that one multiplies while the other begins or ends.
//
// From memory come and go 4·head_size bytes a token of a state, and 2·head_size more where the end reads
// something else, for 2·head_size² operations; the matrix comes from the second-level cache for all blocks but
// the first.
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda::linear_attention {
namespace {

constexpr int warp_rows = 2, warp_columns = 4, threads = warp_rows * warp_columns * warp_size;
constexpr int tall = 2, half_tokens = 16 * tall, block_tokens = warp_rows * half_tokens;
constexpr int stages = 3;

// How many 8-wide tiles a warp takes, so that 4 warps cover a head.
constexpr int wide_for(int64_t head_size) {
  for (const int wide : {1, 2, 4, 6, 8})
    if (head_size <= 32 * wide) return wide;
  return 9;
}

// body(a std::integral_constant) with the `Wide` for heads of this size.
template <class Body>
void with_wide(int64_t head_size, Body&& body) {
  switch (wide_for(head_size)) {
    case 1: return body(std::integral_constant<int, 1>());
    case 2: return body(std::integral_constant<int, 2>());
    case 4: return body(std::integral_constant<int, 4>());
    case 6: return body(std::integral_constant<int, 6>());
    case 8: return body(std::integral_constant<int, 8>());
    default: return body(std::integral_constant<int, 9>());
  }
}

template <class T>
struct RowTiles {
  const T* x;
  int x_stride;
  const T* matrix;
  const float* total;
  // What the end of it reads: the former y, or, of a gradient, what stands under f; null: nothing.
  const T* beside;
  int beside_stride;
  T* y;
  int y_stride;
  const float* inverse;
  float* result;  // 1/z, or −along
  int tokens, heads, head_size;
  bool mapped;
};

// Beside x and the ring: the total as f32 (a gradient's) or as thirds (an answer's), a value of each token, and
// sums of each warp column.
template <class T, int Wide>
struct Tables {
  static constexpr int columns = warp_columns * 8 * Wide, thirds_row = columns + padding;
  float total[columns];
  T thirds[4 * thirds_row];
  float of_token[block_tokens];
  float sums[warp_columns][block_tokens];
};

template <class T, int Wide, bool Transposed>
struct RowBlock {
  static constexpr int columns = warp_columns * 8 * Wide, tile_row = columns + padding;
  // In elements. A stage holds rows of the matrix for 32 of the depth, or, transposed, columns of them; or half
  // of the block's tokens of what the end reads and writes.
  static constexpr int stage = stage_depth * tile_row, tile = block_tokens * tile_row;
  static constexpr size_t bytes = (tile + stages * stage) * sizeof(T) + sizeof(Tables<T, Wide>);
  static_assert(half_tokens == stage_depth);
  using Sums = float[tall][Wide][4];

  __device__ RowBlock(const RowTiles<T>& in_, char* shared)
      : in(in_), x_tile(static_cast<T*>(static_cast<void*>(shared))), ring(x_tile + tile),
        tables(*static_cast<Tables<T, Wide>*>(static_cast<void*>(ring + stages * stage))) {
    const int token_blocks = (in.tokens + block_tokens - 1) / block_tokens;
    first_token = static_cast<int>(blockIdx.x % token_blocks) * block_tokens;
    state = static_cast<int>(blockIdx.x / token_blocks);
    tokens = min(block_tokens, in.tokens - first_token);
    steps = (in.head_size + stage_depth - 1) / stage_depth;
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

  __device__ void load_x() const {
    copy_rows<threads, block_tokens, columns>(x_tile, tile_row, row_of(in.x, in.x_stride), in.x_stride, tokens,
                                              in.head_size);
    commit_copies();
  }

  // f of what this thread has copied of x.
  __device__ void map_x() const {
    for_columns<threads, block_tokens, columns>([&](int first, int column, auto at_once) {
#pragma unroll
      for (int row = first; row < first + block_tokens; row += decltype(at_once)::value) {
        uint4& pack = *static_cast<uint4*>(static_cast<void*>(x_tile + row * tile_row + column));
        uint4 pairs = pack;
        for (unsigned* pair : {&pairs.x, &pairs.y, &pairs.z, &pairs.w}) *pair = features<T>(*pair, true);
        pack = pairs;
      }
    });
  }

  __device__ T* slot(int step) const { return ring + step % stages * stage; }

  // The matrix's for each step, and behind those what the end reads, in halves.
  __device__ void load(int step) const {
    const int k = step * stage_depth;
    if (step >= steps)
      load_beside(step - steps);
    else if constexpr (Transposed)
      load_columns(slot(step), matrix + k, in.head_size - k);
    else
      copy_rows<threads, stage_depth, columns>(slot(step), tile_row, matrix + k * in.head_size, in.head_size,
                                               in.head_size - k, in.head_size);
    commit_copies();
  }

  // Which pack of a column of the matrix in a stage holds its values from 8·pack on: there is no room for
  // padding, but so 8 columns' meet no bank twice.
  __device__ static int place_of(int column, int pack) { return pack ^ column / 2 % 4; }

  __device__ void load_columns(T* to, const T* from, int left) const {
    constexpr int packs = stage_depth / 8, at_once = threads / packs;
    const int first = static_cast<int>(threadIdx.x) / packs, pack = static_cast<int>(threadIdx.x) % packs;
    to += first * stage_depth + place_of(first, pack) * 8;  // all of a thread's: at_once is a multiple of 8
    from += first * in.head_size + pack * 8;
#pragma unroll
    for (int column = 0; column < columns; column += at_once)
      if (columns % at_once == 0 || first + column < columns)
        copy_16(to + column * stage_depth, from + column * in.head_size,
                first + column < in.head_size && pack * 8 < left);
  }

  __device__ void load_beside(int half) const {
    if (in.beside == nullptr) return;
    copy_rows<threads, half_tokens, columns>(
        slot(steps + half), tile_row,
        row_of(in.beside, in.beside_stride) + half * half_tokens * in.beside_stride, in.beside_stride,
        tokens - half * half_tokens, in.head_size);
  }

  // What the products need; there after the first barrier.
  __device__ void fill_tables() const {
    const float* total = in.total ? in.total + static_cast<int64_t>(state) * in.head_size : nullptr;
    for (int i = threadIdx.x; i < columns; i += threads) {
      const float value = total && i < in.head_size ? total[i] : 0.0f;
      if constexpr (Transposed) {
        tables.total[i] = value;
      } else {
        put_thirds(value, tables.thirds + i, tables.thirds_row);
        tables.thirds[3 * tables.thirds_row + i] = T{0};
      }
    }
    const int t = static_cast<int>(threadIdx.x);
    if (Transposed && t < block_tokens)
      tables.of_token[t] = in.inverse && t < tokens ? in.inverse[token_at() + t] : 1.0f;
  }

  // The product of one stage, and f(x)·total for the tokens of this warp's tile number warp_column mod tall.
  __device__ void multiply(int step, Sums& sums, float (&z)[4]) const {
    const T* left_at =
        x_tile + (warp_row * half_tokens + lane % 16) * tile_row + lane / 16 * 8 + step * stage_depth;
    const int across = lane / 16 * 8, along = lane / 8 % 2, row = lane % 8, column = warp_column * 8 * Wide;
    const T* right =
        slot(step) + (Transposed ? (column + row) * stage_depth : (8 * along + row) * tile_row + column);
#pragma unroll
    for (int k = 0; k < stage_depth; k += 16) {
      unsigned left[tall][4];
#pragma unroll
      for (int m = 0; m < tall; ++m) load_tiles(left[m], left_at + 16 * m * tile_row + k);
      if constexpr (!Transposed) {
        unsigned chosen[4], thirds[2];
        choose(chosen, left, warp_column % tall);
        load_thirds(thirds, tables.thirds + step * stage_depth + k, tables.thirds_row);
        mma<T>(z, chosen, thirds);
      }
      multiply_fragments<T, tall, Wide>(
          left,
          [&](unsigned(&pairs)[4], int n) {
            const int next = 8 * n + (n + 1 < Wide ? across : 0);
            if constexpr (Transposed)
              load_tiles(pairs, right + place_of(row, k / 8 + along) * 8 + next * stage_depth);
            else
              load_tiles_transposed(pairs, right + k * tile_row + next);
          },
          sums);
    }
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

  // In the half of the tokens that is this warp's.
  __device__ unsigned& in_tile(int row, int column) const {
    return pair_at(slot(steps + warp_row) + row % half_tokens * tile_row + column);
  }

  __device__ void invert_denominators(const float (&z)[4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = (warp_row * tall + warp_column % tall) * 16 + lane / 4 + 8 * half;
      const float inverse = 1.0f / away_from_zero(quad_sum(z[2 * half] + z[2 * half + 1]), in.mapped);
      if (warp_column >= tall || lane % 4 != 0) continue;
      tables.of_token[row] = inverse;
      if (in.result && row < tokens) in.result[token_at() + row] = inverse;
    }
  }

  __device__ void finish_answer(const Sums& sums, const float (&z)[4]) const {
    if (in.total) invert_denominators(z);
    wait_for_copies<0>();
    __syncthreads();
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
          const float2 f = unpack<T>(features<T>(under, in.mapped));
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
    wait_for_copies<0>();
    __syncthreads();
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
    for (int half = 0; half < warp_rows; ++half)
      store_rows<threads, half_tokens, columns>(slot(steps + half), tile_row,
                                                row_of(in.y, in.y_stride) + half * half_tokens * in.y_stride,
                                                in.y_stride, tokens - half * half_tokens, in.head_size);
  }

  const RowTiles<T>& in;
  T *x_tile, *ring;
  Tables<T, Wide>& tables;
  const T* matrix;
  int first_token, state, tokens, steps, lane, warp_row, warp_column;
};

template <class T, int Wide, bool Transposed>
__global__ void __launch_bounds__(threads, 2) multiply_rows(RowTiles<T> in) {
  if (!tiles_built) return;
  LINNET_DYNAMIC_SHARED(shared);
  using Block = RowBlock<T, Wide, Transposed>;
  const Block block(in, shared);
  typename Block::Sums sums = {};
  float z[4] = {};
  block.load_x();
  for (int step = 0; step < stages - 1; ++step) block.load(step);
  block.fill_tables();
  if (!Transposed && in.mapped) {
    wait_for_copies<stages - 1>();
    block.map_x();
  }
  for (int step = 0; step < block.steps; ++step) {
    wait_for_copies<stages - 2>();
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
  launch(multiply_rows<T, Wide, Transposed>,
         dim3(static_cast<unsigned>(shape.states() * divide_up(shape.tokens, block_tokens))), dim3(threads),
         RowBlock<T, Wide, Transposed>::bytes, in);
}

template <class T>
T* first_of(const ColumnView& columns) {
  return columns.view.as<T>() + columns.first;
}

}  // namespace

size_t rows_bytes(int64_t head_size) {
  size_t bytes = 0;
  with_wide(head_size, [&](auto wide) { bytes = RowBlock<bf16, decltype(wide)::value, true>::bytes; });
  return bytes;
}

namespace {

// What answers and gradients have in common.
template <class T, class Step>
RowTiles<T> tiles_of(const Step& step) {
  RowTiles<T> in{};
  in.x = first_of<T>(step.x);
  in.x_stride = static_cast<int>(step.x.stride);
  in.matrix = static_cast<const T*>(step.matrix);
  in.total = step.total;
  in.y = first_of<T>(step.y);
  in.y_stride = static_cast<int>(step.y.stride);
  return in;
}

}  // namespace

void answer_by_tiles(const Shape& shape, const Answer& step) {
  with_half(shape.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    RowTiles<T> in = tiles_of<T>(step);
    in.beside = step.add ? in.y : nullptr;
    in.beside_stride = in.y_stride;
    in.result = step.inverse;
    with_wide(shape.head_size, [&](auto wide) { launch_rows<T, decltype(wide)::value, false>(shape, in); });
  });
}

void gradient_by_tiles(const Shape& shape, const Gradient& step) {
  with_half(shape.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    RowTiles<T> in = tiles_of<T>(step);
    in.beside = first_of<T>(step.under);
    in.beside_stride = static_cast<int>(step.under.stride);
    in.inverse = step.inverse;
    in.result = step.against;
    with_wide(shape.head_size, [&](auto wide) { launch_rows<T, decltype(wide)::value, true>(shape, in); });
  });
}

}  // namespace linnet::cuda::linear_attention
