// What each token of a state gets of the state's matrix, by products of groups of warps
// (cuda/group_products.h): the answers to queries, f(x)·matrix, and gradients, x·matrixᵀ. A block keeps the
// matrix, or some of its columns, in shared memory and walks over a part of the tokens, 64 a group at a time.
// The tokens' x come to registers as the products' left fragments, those of the next tokens while these are
// multiplied; what the end of it reads comes to shared memory meanwhile, where the results take its place.
//
// From memory come and go 4·head_size bytes a token of a state, and 2·head_size more if the end reads
// something.
#include "cuda/group_products.h"
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda::linear_attention {
namespace {

constexpr int group_tokens = 64;
constexpr int barrier = 1;  // of the first group

// Steps of a matrix of `head` rows: as it is swizzled, or with a gap, so that neighbouring packs of a row meet
// no bank twice.
constexpr SwizzledSteps steps_for(int head, SwizzledSteps) { return {1024, 1024 * head / 8}; }
constexpr BlockSteps steps_for(int head, BlockSteps) { return {128, 128 * head / 8 + 16}; }
constexpr int bytes_of(int columns, SwizzledSteps steps) { return columns / 64 * steps.column; }
constexpr int bytes_of(int columns, BlockSteps steps) { return (columns / 8 * steps.column + 127) / 128 * 128; }

// Of a block: the head's size, how many of its columns it has, its groups of warps, and how many tiles of y a
// group keeps in shared memory.
template <int Head, int Columns, int Groups, int Buffers>
struct Layout {
  static constexpr int head = Head, columns = Columns, groups = Groups, buffers = Buffers;
  static constexpr int chunks = Head / Columns, threads = Groups * group_size, blocks = 2 / Groups;
  static constexpr int parts_of_depth = Head / 32;  // a lane reads 8 of 32 channels of a row at once
  // The matrix is a right tile whose depth is in another order (place_in_depth); behind it, in one more column
  // of blocks, is the total as thirds.
  using Steps = std::conditional_t<Columns % 64 == 0, SwizzledSteps, BlockSteps>;
  static constexpr Steps steps = steps_for(Head, Steps{});
  static constexpr BlockSteps total_steps = {128, 0};
  static constexpr int total_at = bytes_of(Columns, steps),
                       matrix_bytes = total_at + Head / 8 * total_steps.depth;
  static constexpr int row_pitch = Columns + padding, buffer_bytes = group_tokens * row_pitch * 2;
  static constexpr size_t shared_bytes = matrix_bytes + Groups * Buffers * buffer_bytes;
  static_assert(Head % Columns == 0 && Head % 32 == 0 && shared_bytes <= 226 * 1024 / blocks);

  // Where row `channel` of the matrix stands in the depth: so that of the 8 channels that a lane reads at once
  // each two neighbours are a register of its fragments.
  __device__ static int place_in_depth(int channel) {
    const int step = channel / 32 * 2 + channel % 8 / 4;
    return step * 16 + channel % 4 / 2 * 8 + channel % 32 / 8 * 2 + channel % 2;
  }
};

using Whole = Layout<192, 192, 2, 2>;

// body(the Layout for heads of this size), if there is one
template <class Body>
bool with_layout(int64_t head_size, Body&& body) {
  if (head_size == 192)
    body(Whole());
  else if (head_size == 288)
    body(Layout<288, 144, 1, 1>());
  else
    return false;
  return true;
}

// Of answers: divided by z, or there is no total; and the gradients of keys and queries, of whole heads.
enum class Kind { divided, plain, keys, queries };

template <class T>
struct RowGroups {
  const T *x, *matrix;
  const float* total;
  const T* beside;  // the former y, or what stands under f; null: nothing
  T* y;
  int x_stride, beside_stride, y_stride;
  const float* inverse;  // of gradients of queries
  float* result;         // 1/z, or −along; or null
  int tokens, heads, parts, part_tokens;
  bool mapped;
};

template <class T, class L, Kind kind>
struct RowsBlock : L {
  using L::columns, L::head, L::parts_of_depth, L::threads, L::row_pitch, L::total_at;
  static constexpr bool transposed = kind == Kind::keys || kind == Kind::queries;
  using Rows = uint4[parts_of_depth][2];  // of a lane: 8 channels each of its upper and its lower row

  __device__ RowsBlock(const RowGroups<T>& in_, char* shared_)
      : in(in_), shared(shared_), lane(static_cast<int>(threadIdx.x) % warp_size),
        thread(static_cast<int>(threadIdx.x) % group_size), group(static_cast<int>(threadIdx.x) / group_size) {
    const int part = static_cast<int>(blockIdx.x) % in.parts;
    state = static_cast<int>(blockIdx.x) / in.parts / L::chunks;
    first_column = static_cast<int>(blockIdx.x) / in.parts % L::chunks * columns;
    begin = part * in.part_tokens;
    tokens = min(in.tokens - begin, in.part_tokens);
    const auto first_of = [&](auto* data, int stride) {
      return rows_of(data, stride, state, in.heads, in.tokens, head) + static_cast<int64_t>(begin) * stride;
    };
    x = first_of(in.x, in.x_stride);
    beside = in.beside ? first_of(in.beside, in.beside_stride) + first_column : nullptr;
    y = first_of(in.y, in.y_stride) + first_column;
  }

  __device__ void load_matrix() const {
    if constexpr (transposed)
      load_transposed();
    else
      load_packs();
    const float* const total = in.total + static_cast<int64_t>(state) * head;
    for (int i = static_cast<int>(threadIdx.x); kind != Kind::plain && i < head; i += threads) {
      if constexpr (transposed) {
        totals()[i] = total[i];
      } else {
        char* const to = shared + total_at + place_of(L::total_steps, L::place_in_depth(i), 0);
        *static_cast<uint4*>(static_cast<void*>(to)) = make_uint4(0, 0, 0, 0);
        put_thirds(total[i], static_cast<T*>(static_cast<void*>(to)), 1);
      }
    }
  }

  // Of the matrix: a pack of a row's columns.
  __device__ char* pack_at(int channel, int pack) const {
    return shared + place_of(L::steps, L::place_in_depth(channel), pack * 8);
  }
  __device__ void load_packs() const {
    constexpr int packs = columns / 8;
    const T* const from = in.matrix + static_cast<int64_t>(state) * head * head + first_column;
    for (int i = static_cast<int>(threadIdx.x); i < head * packs; i += threads)
      copy_16(pack_at(i / packs, i % packs), from + i / packs * head + i % packs * 8);
    commit_copies();
  }
  __device__ void load_transposed() const {
    constexpr int packs = head / 8;
    const T* const from = in.matrix + static_cast<int64_t>(state) * head * head;
    for (int i = static_cast<int>(threadIdx.x); i < head * packs; i += threads) {
      const int column = i / packs, channel = i % packs * 8;
      const auto values = load_pack<8>(from + column * head + channel);
#pragma unroll
      for (int c = 0; c < 8; ++c)
        static_cast<T*>(static_cast<void*>(pack_at(channel + c, column / 8)))[column % 8] = values.at[c];
    }
  }
  __device__ float* totals() const { return static_cast<float*>(static_cast<void*>(shared + total_at)); }

  __device__ void load_x(int first, Rows& rows) const {
    const int row = first + thread / warp_size * 16 + lane / 4;
    const T* const from = x + static_cast<int64_t>(row) * in.x_stride + lane % 4 * 8;
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < parts_of_depth; ++i)
        rows[i][half] =
            row + 8 * half < tokens
                ? *static_cast<const uint4*>(static_cast<const void*>(from + 8 * half * in.x_stride + 32 * i))
                : make_uint4(0, 0, 0, 0);
  }

  __device__ T* buffer(int which) const {
    return static_cast<T*>(
        static_cast<void*>(shared + L::matrix_bytes + (L::buffers * group + which) * L::buffer_bytes));
  }

  // body(row, column) for the packs of 64 tokens that this thread copies
  template <class Body>
  __device__ void for_packs(int first, Body body) const {
#pragma unroll 1
    for (int row = 0; row < group_tokens; row += group_size / 8)
#pragma unroll
      for (int column = 0; column < columns; column += 64)
        if (first + row + thread / 8 < tokens && column + thread % 8 * 8 < columns)
          body(row + thread / 8, column + thread % 8 * 8);
  }
  __device__ void load_beside(int first, int which) const {
    if (beside != nullptr) {
      T* const to = buffer(which);
      const T* const from = beside + static_cast<int64_t>(first) * in.beside_stride;
      for_packs(first, [&](int row, int column) {
        copy_16(to + row * row_pitch + column, from + static_cast<int64_t>(row) * in.beside_stride + column);
      });
    }
    commit_copies();
  }
  __device__ void store(int first, int which) const {
    const T* const from = buffer(which);
    T* const to = y + static_cast<int64_t>(first) * in.y_stride;
    for_packs(first, [&](int row, int column) {  // as uint4: a Pack may be stored in four pieces
      *static_cast<uint4*>(static_cast<void*>(to + static_cast<int64_t>(row) * in.y_stride + column)) =
          *static_cast<const uint4*>(static_cast<const void*>(from + row * row_pitch + column));
    });
  }

  using Sums = float[columns / 8][4];

  // The left fragments of all of the depth.
  __device__ void map_x(const Rows& rows, unsigned (&left)[2 * parts_of_depth][4]) const {
#pragma unroll
    for (int i = 0; i < parts_of_depth; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4& pack = rows[i][half];
        left[2 * i][half] = features<T>(pack.x, !transposed && in.mapped);
        left[2 * i][half + 2] = features<T>(pack.y, !transposed && in.mapped);
        left[2 * i + 1][half] = features<T>(pack.z, !transposed && in.mapped);
        left[2 * i + 1][half + 2] = features<T>(pack.w, !transposed && in.mapped);
      }
  }

  __device__ void multiply(const unsigned (&left)[2 * parts_of_depth][4], Sums& sums, float (&z)[1][4]) const {
    begin_group_products();
#pragma unroll
    for (int i = 0; i < 2 * parts_of_depth; ++i) {
      multiply_group<T>(sums, left[i], shared + 2 * i * L::steps.depth, L::steps, i > 0);
      if constexpr (kind == Kind::divided)
        multiply_group<T>(z, left[i], shared + total_at + 2 * i * L::total_steps.depth, L::total_steps, i > 0);
    }
    commit_group_products();
  }

  // Of this lane's upper or lower row.
  __device__ int row_of(int half) const { return thread / warp_size * 16 + lane / 4 + 8 * half; }
  __device__ unsigned& pair_of_tile(int which, int half, int j) const {
    return pair_at(buffer(which) + row_of(half) * row_pitch + 8 * j + 2 * (lane % 4));
  }
  // Of a token's value: the same in the four lanes that have its row.
  __device__ void put_result(int first, int half, float value) const {
    if (in.result && first_column == 0 && lane % 4 == 0 && first + row_of(half) < tokens)
      in.result[static_cast<int64_t>(state) * in.tokens + begin + first + row_of(half)] = value;
  }

  __device__ void finish_answer(int first, int which, int half, const Sums& sums,
                                const float (&z)[1][4]) const {
    float inverse = 1.0f;
    if constexpr (kind == Kind::divided) {
      inverse = 1.0f / away_from_zero(quad_sum(z[0][2 * half] + z[0][2 * half + 1]), in.mapped);
      put_result(first, half, inverse);
    }
#pragma unroll
    for (int j = 0; j < columns / 8; ++j) {
      unsigned& at = pair_of_tile(which, half, j);
      const float2 former = beside ? unpack<T>(at) : make_float2(0, 0);
      at = pack<T>(fmaf(sums[j][2 * half], inverse, former.x), fmaf(sums[j][2 * half + 1], inverse, former.y));
    }
  }

  __device__ void finish_gradient(int first, int which, int half, const Sums& sums, float inverse) const {
    float along = -1.0f;
    if constexpr (kind == Kind::queries) {
      float dot = 0;
#pragma unroll
      for (int j = 0; j < columns / 8; ++j) {
        const float2 f = unpack<T>(features<T>(pair_of_tile(which, half, j), in.mapped));
        dot = fmaf(f.x, sums[j][2 * half], fmaf(f.y, sums[j][2 * half + 1], dot));
      }
      along = quad_sum(dot) * inverse;
      put_result(first, half, -along);
    }
#pragma unroll
    for (int j = 0; j < columns / 8; ++j) {
      unsigned& at = pair_of_tile(which, half, j);
      const float2 under = unpack<T>(at);
      const auto total = load_pack<2>(totals() + 8 * j + 2 * (lane % 4));
      const float one = inverse * (sums[j][2 * half] - along * total.at[0]);
      const float other = inverse * (sums[j][2 * half + 1] - along * total.at[1]);
      at = pack<T>(!in.mapped || under.x > 0.0f ? one : 0.0f, !in.mapped || under.y > 0.0f ? other : 0.0f);
    }
  }

  __device__ float inverse_of(int first, int half) const {
    if (kind != Kind::queries || first + row_of(half) >= tokens) return 1.0f;
    return in.inverse[static_cast<int64_t>(state) * in.tokens + begin + first + row_of(half)];
  }

  __device__ void run() const {
    load_matrix();
    Rows rows;
    Sums sums = {};
    float z[1][4] = {};
    int first = group * group_tokens;
    load_x(first, rows);
    wait_for_copies<0>();
    show_to_group_products();
    __syncthreads();
    load_beside(first, 0);
    for (int which = 0; first < tokens; which = L::buffers - 1 - which) {
      const int later = first + L::groups * group_tokens, other = L::buffers - 1 - which;
      unsigned left[2 * parts_of_depth][4];
      map_x(rows, left);
      multiply(left, sums, z);
      load_x(later, rows);
      if constexpr (L::buffers > 1) load_beside(later, other);
      const float inverses[2] = {inverse_of(first, 0), inverse_of(first, 1)};
      wait_for_group_products<0>();
      wait_for_copies<L::buffers - 1>();
      meet(barrier + group, group_size);  // what stands beside the group's tokens is there
#pragma unroll
      for (int half = 0; half < 2; ++half)
        if constexpr (transposed)
          finish_gradient(first, which, half, sums, inverses[half]);
        else
          finish_answer(first, which, half, sums, z);
      meet(barrier + group, group_size);
      store(first, which);
      meet(barrier + group, group_size);  // and may be written over
      if constexpr (L::buffers == 1) load_beside(later, other);
      first = later;
    }
    wait_for_copies<0>();
  }

  const RowGroups<T>& in;
  char* shared;
  int lane, thread, group, state, first_column, begin, tokens;
  // Of the state's head, from the block's first token on.
  const T *x, *beside;
  T* y;
};

template <class T, class L, Kind kind>
__global__ void __launch_bounds__(L::threads, L::blocks) multiply_rows_by_groups(RowGroups<T> in) {
  if (!group_products_built) return;
  LINNET_DYNAMIC_SHARED(shared);
  RowsBlock<T, L, kind>(in, shared).run();
}

template <class T, class L, Kind kind>
void launch_rows(const Shape& shape, RowGroups<T> in) {
  const int64_t blocks = shape.states() * L::chunks, wanted = parts_of(shape.tokens, blocks, L::blocks);
  in.part_tokens = static_cast<int>(divide_up(divide_up(shape.tokens, wanted), group_tokens) * group_tokens);
  in.parts = static_cast<int>(divide_up(shape.tokens, in.part_tokens));
  in.tokens = static_cast<int>(shape.tokens);
  in.heads = static_cast<int>(shape.heads);
  in.mapped = shape.mapped;
  launch(multiply_rows_by_groups<T, L, kind>, dim3(static_cast<unsigned>(blocks * in.parts)), dim3(L::threads),
         L::shared_bytes, in);
}

// What answers and gradients have in common.
template <class T, class Step>
RowGroups<T> groups_of(const Step& step) {
  RowGroups<T> in{};
  in.x = step.x.view.template as<T>() + step.x.first;
  in.x_stride = static_cast<int>(step.x.stride);
  in.matrix = static_cast<const T*>(step.matrix);
  in.total = step.total;
  in.y = step.y.view.template as<T>() + step.y.first;
  in.y_stride = static_cast<int>(step.y.stride);
  return in;
}

}  // namespace

bool answer_by_groups(const Shape& shape, const Answer& step) {
  if (!has_group_products()) return false;
  return with_layout(shape.head_size, [&](auto layout) {
    using L = decltype(layout);
    with_half(shape.dtype, [&](auto* type) {
      using T = Pointee<decltype(type)>;
      RowGroups<T> in = groups_of<T>(step);
      in.beside = step.add ? in.y : nullptr;
      in.beside_stride = in.y_stride;
      in.result = step.inverse;
      step.total ? launch_rows<T, L, Kind::divided>(shape, in) : launch_rows<T, L, Kind::plain>(shape, in);
    });
  });
}

bool gradient_by_groups(const Shape& shape, const Gradient& step) {
  if (!has_group_products() || shape.head_size != Whole::head) return false;
  with_half(shape.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    RowGroups<T> in = groups_of<T>(step);
    in.beside = step.under.view.template as<T>() + step.under.first;
    in.beside_stride = static_cast<int>(step.under.stride);
    in.inverse = step.inverse;
    in.result = step.against;
    step.inverse ? launch_rows<T, Whole, Kind::queries>(shape, in)
                 : launch_rows<T, Whole, Kind::keys>(shape, in);
  });
  return true;
}

}  // namespace linnet::cuda::linear_attention
