// What each token of a state gets of the state's matrix, by tensor cores: the answers to queries, f(x)·matrix,
// and gradients, x·matrixᵀ. A block takes 64 tokens, whose x it holds, and all columns of a head, so that rows
// of results are whole and what is done to them beyond the product is done at its end, in shared memory; the
// matrix streams by. Two blocks share a multiprocessor, so that one multiplies while the other begins or ends.
//
// Of heads that are too wide for that a block takes 32 tokens and a chunk of the columns. What needs whole
// rows, the gradients of queries, is finished by a second, small kernel.
//
// From memory come and go 4·head_size bytes a token of a state, and 2·head_size more where the end reads
// something else, for 2·head_size² operations; the matrix comes from the second-level cache for all blocks but
// the first.
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda::linear_attention {
namespace {

constexpr int warp_rows = 2, warp_columns = 4, threads = warp_rows * warp_columns * warp_size;
constexpr int stages = 3;

// A warp's tokens, 16·Tall, and columns, 8·Wide. Whole: 4 warps beside each other cover a head.
template <int Tall, int Wide>
struct Layout {
  static constexpr int tall = Tall, wide = Wide;
  static constexpr bool whole = Tall == 2;
  static constexpr int half_tokens = 16 * Tall, block_tokens = warp_rows * half_tokens;
  static constexpr int columns = warp_columns * 8 * Wide;
  static_assert(half_tokens <= stage_depth);
};

// body(the Layout for heads of this size)
template <class Body>
auto with_layout(int64_t head_size, Body&& body) {
  if (head_size <= 32) return body(Layout<2, 1>());
  if (head_size <= 64) return body(Layout<2, 2>());
  if (head_size <= 128) return body(Layout<2, 4>());
  if (head_size <= 192) return body(Layout<2, 6>());
  if (head_size <= 256) return body(Layout<2, 8>());
  if (head_size <= 288) return body(Layout<2, 9>());
  return body(Layout<1, 6>());
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
  // Of gradients of queries in chunks, in place of y: the products (states, tokens, head_size), and of each
  // chunk their sums with f(under) (chunks, states, tokens).
  float *products, *dots;
  int tokens, heads, head_size, chunks;
  bool mapped;
};

// Behind x and the ring: the total as f32 (a gradient's), a value of each token, and sums of each warp column;
// and behind these the total as thirds (an answer's).
template <class L>
struct Tables {
  float total[L::columns];
  float of_token[L::block_tokens];
  float sums[warp_columns][L::block_tokens];
};

template <class T, class L, bool Transposed>
struct RowBlock : L {
  using L::columns, L::tall, L::half_tokens, L::block_tokens, L::whole;
  static constexpr int Wide = L::wide, tile_row = columns + padding;
  // In elements. A stage holds rows of the matrix for 32 of the depth, or, transposed, columns of them; or half
  // of the block's tokens of what the end reads and writes.
  static constexpr int stage = stage_depth * tile_row;
  using Sums = float[tall][Wide][4];

  /// Between rows of x.
  __host__ __device__ static constexpr int x_row_of(int head_size) {
    return whole ? tile_row : (head_size + stage_depth - 1) / stage_depth * stage_depth + padding;
  }
  static size_t bytes(int64_t head_size) {
    const auto x_row = static_cast<size_t>(x_row_of(static_cast<int>(head_size)));
    return ((block_tokens + 4) * x_row + stages * stage) * sizeof(T) + sizeof(Tables<L>);
  }

  __device__ RowBlock(const RowTiles<T>& in_, char* shared)
      : in(in_), x_row(x_row_of(in.head_size)), x_tile(static_cast<T*>(static_cast<void*>(shared))),
        ring(x_tile + block_tokens * x_row),
        tables(*static_cast<Tables<L>*>(static_cast<void*>(ring + stages * stage))),
        thirds(static_cast<T*>(static_cast<void*>(&tables + 1))) {
    first_token = static_cast<int>(blockIdx.x) % token_blocks() * block_tokens;
    int task = static_cast<int>(blockIdx.x) / token_blocks();
    if constexpr (!whole) {
      first_column = task % in.chunks * columns;
      task /= in.chunks;
    }
    state = task;
    tokens = min(block_tokens, in.tokens - first_token);
    width = in.head_size - first_column;
    steps = (in.head_size + stage_depth - 1) / stage_depth;
    matrix = in.matrix + static_cast<int64_t>(state) * in.head_size * in.head_size +
             first_column * (Transposed ? in.head_size : 1);
    lane = threadIdx.x % warp_size;
    warp_row = threadIdx.x / warp_size % warp_rows;
    warp_column = threadIdx.x / warp_size / warp_rows;
  }

  __device__ int token_blocks() const { return (in.tokens + block_tokens - 1) / block_tokens; }
  template <class Element>
  __device__ Element* row_of(Element* data, int64_t stride) const {
    return rows_of(data, stride, state, in.heads, in.tokens, in.head_size) + first_token * stride;
  }
  __device__ int64_t token_at() const { return static_cast<int64_t>(state) * in.tokens + first_token; }

  __device__ void load_x() const {
    const T* const from = row_of(in.x, in.x_stride);
    if constexpr (whole)
      copy_rows<threads, block_tokens, columns>(x_tile, x_row, from, in.x_stride, tokens, in.head_size);
    else
      for_packs_of_x([&](int row, int column) {
        copy_16(x_tile + row * x_row + column, from + static_cast<int64_t>(row) * in.x_stride + column,
                row < tokens && column < in.head_size);
      });
    commit_copies();
  }

  // body(row, column) for the packs of 8 that are this thread's, in chunks: a warp has whole rows.
  template <class Body>
  __device__ void for_packs_of_x(Body body) const {
    for (int row = static_cast<int>(threadIdx.x) / warp_size; row < block_tokens; row += threads / warp_size)
      for (int column = 8 * lane; column < x_row - padding; column += 8 * warp_size) body(row, column);
  }

  // f of what this thread has copied of x.
  __device__ void map_x() const {
    const auto map_pack = [&](int row, int column) {
      uint4& pack = *static_cast<uint4*>(static_cast<void*>(x_tile + row * x_row + column));
      uint4 pairs = pack;
      for (unsigned* pair : {&pairs.x, &pairs.y, &pairs.z, &pairs.w}) *pair = features<T>(*pair, true);
      pack = pairs;
    };
    if constexpr (whole)
      for_columns<threads, block_tokens, columns>([&](int first, int column, auto at_once) {
#pragma unroll
        for (int row = first; row < first + block_tokens; row += decltype(at_once)::value)
          map_pack(row, column);
      });
    else
      for_packs_of_x(map_pack);
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
                                               in.head_size - k, width);
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
                first + column < width && pack * 8 < left);
  }

  __device__ void load_beside(int half) const {
    if (in.beside == nullptr) return;
    copy_rows<threads, half_tokens, columns>(
        slot(steps + half), tile_row,
        row_of(in.beside, in.beside_stride) + half * half_tokens * in.beside_stride + first_column,
        in.beside_stride, tokens - half * half_tokens, width);
  }

  // What the products need; there after the first barrier.
  __device__ void fill_tables() const {
    const float* total = in.total ? in.total + static_cast<int64_t>(state) * in.head_size : nullptr;
    if constexpr (Transposed) {
      for (int i = threadIdx.x; i < columns; i += threads)
        tables.total[i] = i < width ? total[first_column + i] : 0.0f;
    } else {
      for (int i = threadIdx.x; i < x_row; i += threads) {
        put_thirds(total && i < in.head_size ? total[i] : 0.0f, thirds + i, x_row);
        thirds[3 * x_row + i] = T{0};
      }
    }
    const int t = static_cast<int>(threadIdx.x);
    if (Transposed && t < block_tokens)
      tables.of_token[t] = in.inverse && t < tokens ? in.inverse[token_at() + t] : 1.0f;
  }

  // The product of one stage, and f(x)·total for the tokens of this warp's tile number warp_column mod tall.
  __device__ void multiply(int step, Sums& sums, float (&z)[4]) const {
    const T* left_at =
        x_tile + (warp_row * half_tokens + lane % 16) * x_row + lane / 16 * 8 + step * stage_depth;
    const int across = lane / 16 * 8, along = lane / 8 % 2, row = lane % 8, column = warp_column * 8 * Wide;
    const T* right =
        slot(step) + (Transposed ? (column + row) * stage_depth : (8 * along + row) * tile_row + column);
#pragma unroll
    for (int k = 0; k < stage_depth; k += 16) {
      unsigned left[tall][4];
#pragma unroll
      for (int m = 0; m < tall; ++m) load_tiles(left[m], left_at + 16 * m * x_row + k);
      if constexpr (!Transposed) {
        unsigned chosen[4], of_total[2];
        choose(chosen, left, warp_column % tall);
        load_thirds(of_total, thirds + step * stage_depth + k, x_row);
        mma<T>(z, chosen, of_total);
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
      if (in.result && first_column == 0 && row < tokens) in.result[token_at() + row] = inverse;
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

  // The products' sums with f(under), of each token in the same thread.
  __device__ float find_dots(const Sums& sums) const {
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
    float dot = 0;
    if (threadIdx.x < block_tokens)
      for (int i = 0; i < warp_columns; ++i) dot += tables.sums[i][threadIdx.x];
    return dot;
  }

  // along of each token, to stand in tables.sums[0].
  __device__ void find_along(const Sums& sums) const {
    const float dot = find_dots(sums);
    if (threadIdx.x < block_tokens) {
      const float along = dot * tables.of_token[threadIdx.x];
      tables.sums[0][threadIdx.x] = along;
      if (static_cast<int>(threadIdx.x) < tokens) in.result[token_at() + threadIdx.x] = -along;
    }
    __syncthreads();
  }

  // What finish_queries() needs of a chunk.
  __device__ void keep_products(const Sums& sums) const {
    const float dot = find_dots(sums);
    const int64_t chunk = first_column / columns, states = gridDim.x / in.chunks / token_blocks();
    if (static_cast<int>(threadIdx.x) < tokens)
      in.dots[chunk * states * in.tokens + token_at() + threadIdx.x] = dot;
    for_pairs(sums, [&](int row, int column, float first, float second) {
      if (row < tokens && column < width)
        store_pack(in.products + (token_at() + row) * in.head_size + first_column + column,
                   Pack<float, 2>{{first, second}});
    });
  }

  __device__ void finish_gradient(const Sums& sums) const {
    wait_for_copies<0>();
    __syncthreads();
    if constexpr (!whole)
      if (in.products != nullptr) return keep_products(sums);
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
    if constexpr (!whole)
      if (in.products != nullptr) return;
    __syncthreads();
    for (int half = 0; half < warp_rows; ++half)
      store_rows<threads, half_tokens, columns>(
          slot(steps + half), tile_row,
          row_of(in.y, in.y_stride) + half * half_tokens * in.y_stride + first_column, in.y_stride,
          tokens - half * half_tokens, width);
  }

  const RowTiles<T>& in;
  int x_row;
  T *x_tile, *ring;
  Tables<L>& tables;
  T* thirds;
  const T* matrix;
  // width: of the head, from the block's first column on.
  int first_token, state, tokens, width, steps, lane, warp_row, warp_column, first_column = 0;
};

template <class T, class L, bool Transposed>
__global__ void __launch_bounds__(threads, 2) multiply_rows(RowTiles<T> in) {
  if (!products_built) return;
  LINNET_DYNAMIC_SHARED(shared);
  using Block = RowBlock<T, L, Transposed>;
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

// y = f'(under)·inverse·(p − along·total), along = inverse·(sum of dots), of a gradient of queries in chunks: a
// warp a token of a state.
template <class T>
__global__ void finish_queries(RowTiles<T> in, int64_t rows) {
  const int lane = threadIdx.x % warp_size;
  for (int64_t row = thread_number() / warp_size; row < rows; row += thread_count() / warp_size) {
    const int64_t state = row / in.tokens, token = row % in.tokens;
    float dot = 0;
    for (int chunk = 0; chunk < in.chunks; ++chunk) dot += in.dots[chunk * rows + row];
    const float inverse = in.inverse[row], along = dot * inverse;
    if (lane == 0) in.result[row] = -along;
    const float *p = in.products + row * in.head_size, *total = in.total + state * in.head_size;
    const T* under = rows_of(in.beside, in.beside_stride, state, in.heads, in.tokens, in.head_size) +
                     token * in.beside_stride;
    T* y = rows_of(in.y, in.y_stride, state, in.heads, in.tokens, in.head_size) + token * in.y_stride;
    for (int i = lane; i < in.head_size; i += warp_size)
      assign(y[i], !in.mapped || to_float(under[i]) > 0.0f ? inverse * (p[i] - along * total[i]) : 0.0f);
  }
}

template <class T, class L, bool Transposed>
void launch_rows(const Shape& shape, RowTiles<T> in) {
  using Block = RowBlock<T, L, Transposed>;
  in.tokens = static_cast<int>(shape.tokens);
  in.heads = static_cast<int>(shape.heads);
  in.head_size = static_cast<int>(shape.head_size);
  in.chunks = static_cast<int>(divide_up(shape.head_size, L::columns));
  in.mapped = shape.mapped;
  const int64_t rows = shape.states() * shape.tokens, blocks = divide_up(shape.tokens, L::block_tokens);
  const dim3 grid(static_cast<unsigned>(shape.states() * in.chunks * blocks));
  const size_t bytes = Block::bytes(shape.head_size);
  if (!Transposed || L::whole || in.inverse == nullptr)
    return launch(multiply_rows<T, L, Transposed>, grid, dim3(threads), bytes, in);
  const Scratch products(static_cast<size_t>(rows * shape.head_size) * sizeof(float)),
      dots(static_cast<size_t>(rows * in.chunks) * sizeof(float));
  in.products = products.as<float>();
  in.dots = dots.as<float>();
  launch(multiply_rows<T, L, Transposed>, grid, dim3(threads), bytes, in);
  launch_over(rows * warp_size, finish_queries<T>, in, rows);
}

template <class T>
T* first_of(const ColumnView& columns) {
  return columns.view.as<T>() + columns.first;
}

}  // namespace

size_t rows_bytes(int64_t head_size) {
  return with_layout(head_size,
                     [&](auto layout) { return RowBlock<bf16, decltype(layout), true>::bytes(head_size); });
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
    with_layout(shape.head_size, [&](auto layout) { launch_rows<T, decltype(layout), false>(shape, in); });
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
    with_layout(shape.head_size, [&](auto layout) { launch_rows<T, decltype(layout), true>(shape, in); });
  });
}

}  // namespace linnet::cuda::linear_attention
