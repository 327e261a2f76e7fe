// Linear attention of few tokens (linear_attention_pairs_cuda.h) by products of groups of warps
// (cuda/group_products.h). Two groups of a block have 64 tokens each and their x in shared memory. They walk
// over all tokens of the state, 64 at a time: a product of x with the rows of a gives what the pairs weigh,
// whose sums are, in registers, already the left fragments of the product with b. Behind the groups are warps
// that copy, each to a slot of its own: a or b of every second 64 tokens.
//
// From memory come and go 2·head_size bytes of a token's x and y, and once for every 128 tokens, but the first
// time from the second-level cache, 4·head_size bytes of its a and b.
#include "ops/linear_attention_pairs_cuda.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cuda/group_products.h"
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda::linear_attention {
namespace {

constexpr int tile_tokens = 64, groups = 2, stages = 2, slots = 2 * stages;
constexpr int multipliers = groups * group_size, copiers = slots * warp_size, threads = multipliers + copiers;

__host__ __device__ constexpr bool is_gradient_under_f(PairsOf kind) {
  return kind == PairsOf::keys || kind == PairsOf::queries;
}
// Copiers that add totals up need more registers, and there are no more in all.
__host__ __device__ constexpr int registers_to_multiply(PairsOf kind) {
  return is_gradient_under_f(kind) ? 216 : 224;
}
__host__ __device__ constexpr int registers_to_copy(PairsOf kind) {
  return is_gradient_under_f(kind) ? 72 : 56;
}
static_assert(multipliers * registers_to_multiply(PairsOf::keys) + copiers * registers_to_copy(PairsOf::keys) <=
              65536);
static_assert(multipliers * registers_to_multiply(PairsOf::values) +
                  copiers * registers_to_copy(PairsOf::values) <=
              65536);

// Barriers: a slot is full, or empty; a group's x is there, or used up.
constexpr int full = 1, empty = full + slots, x_full = empty + slots, x_empty = x_full + groups;
constexpr int at_a_slot = multipliers + warp_size;
constexpr int copiers_of_x = slots / groups, at_x = group_size + copiers_of_x * warp_size;

// How 64 tokens lie in shared memory: blocks of 8 tokens and 32 channels, the tokens' fastest.
constexpr NarrowSteps steps = {512, 512 * tile_tokens / 8};

template <int Head>
struct Layout {
  static constexpr int head = Head, across = Head / 32, tile_bytes = across * steps.column;
  // Of b, 32 channels at a time are too few for a product, and all may be too many.
  static constexpr int width = Head % 128 == 0 ? 128 : 96, chunks = Head / width;
  static constexpr int slots_at = groups * tile_bytes, totals_at = slots_at + slots * tile_bytes;
  // Totals of two tasks, as copiers are ahead; a row for each slot of b.
  static constexpr size_t shared_bytes = totals_at + 2 * stages * Head * sizeof(float);
  static_assert(Head % width == 0 && shared_bytes <= 227 * 1024);
};

template <class T>
struct PairsIn {
  const T *x, *a, *b;
  const T* beside;  // what stands under f, or the former y; null: nothing
  T* y;
  int x_stride, a_stride, b_stride, beside_stride, y_stride;
  const float *w, *e, *inverse;
  float* result;
  int tokens, heads, tasks;
  bool mapped;
};

// A state's tokens from `begin` on.
struct Task {
  template <class T>
  __device__ Task(const PairsIn<T>& in, int number) {
    const int tasks = (in.tokens + groups * tile_tokens - 1) / (groups * tile_tokens);
    state = number / tasks;
    begin = number % tasks * groups * tile_tokens;
    tiles = (in.tokens + tile_tokens - 1) / tile_tokens;
    tokens_before = static_cast<int64_t>(state) * in.tokens;
  }
  int state, begin, tiles;
  int64_t tokens_before;  // those of the states before, in what has a number for each token
};

// A warp that copies. Lane i has, of each block of 8×32, pack i mod 4 of row i/4.
template <class T, class L, PairsOf kind>
struct Copier {
  static constexpr bool maps_x_and_a = !is_gradient_under_f(kind), maps_b = is_gradient_under_f(kind);

  __device__ Copier(const PairsIn<T>& in_, char* shared_, int slot_)
      : in(in_), shared(shared_), slot(slot_), lane(static_cast<int>(threadIdx.x) % warp_size), row(lane / 4),
        own(narrowly_swizzled(row, lane % 4)) {}

  __device__ bool has_b() const { return slot % 2 == 1; }
  __device__ int stage() const { return slot / 2; }
  __device__ char* tile() const { return shared + L::slots_at + slot * L::tile_bytes; }
  // The warps of a group's x each have some of its rows.
  __device__ int group() const { return slot / copiers_of_x; }
  static constexpr int eights_of_x = tile_tokens / 8 / copiers_of_x;
  __device__ int first_of_x() const { return slot % copiers_of_x * eights_of_x * 8; }
  __device__ char* own_x() const { return shared + group() * L::tile_bytes + first_of_x() / 8 * steps.depth; }

  // Rows from the task's `first` on; zeros where there are none left.
  __device__ void copy(char* to, const T* data, int stride, const Task& task, int first, int eights) const {
    const T* from = rows_of(data, stride, task.state, in.heads, in.tokens, L::head) +
                    static_cast<int64_t>(first + row) * stride + lane % 4 * 8;
    to += own;
#pragma unroll 1  // few registers
    for (int eight = 0; eight < eights; ++eight) {
      const bool there = first + 8 * eight + row < in.tokens;
#pragma unroll
      for (int i = 0; i < L::across; ++i)
        copy_16(to + eight * steps.depth + i * steps.column, from + 32 * i, there);
      from += static_cast<int64_t>(8) * stride;
    }
  }
  __device__ void copy_tile(const Task& task, int number) const {
    copy(tile(), has_b() ? in.b : in.a, has_b() ? in.b_stride : in.a_stride, task, number * tile_tokens,
         tile_tokens / 8);
  }

  // f of what this lane has copied of a block; rows that are not there stay 0.
  __device__ uint4 map(char* block, bool there) const {
    uint4& pack = *static_cast<uint4*>(static_cast<void*>(block + own));
    uint4 values = pack;
    if (!there) return values;
    values.x = features<T>(values.x, in.mapped);
    values.y = features<T>(values.y, in.mapped);
    values.z = features<T>(values.z, in.mapped);
    values.w = features<T>(values.w, in.mapped);
    return pack = values;
  }
  __device__ void map_rows(char* tile, int first, int eights) const {
#pragma unroll 1
    for (int eight = 0; eight < eights; ++eight)
#pragma unroll
      for (int i = 0; i < L::across; ++i)
        map(tile + eight * steps.depth + i * steps.column, first + 8 * eight + row < in.tokens);
  }

  // b's part in the total, of its tile. Weights are one a lane of each 32 tokens', so that few registers do.
  __device__ void map_and_add(const Task& task, int number, float* total) const {
    const int first = number * tile_tokens;
    const float weights[2] = {weight_of(task, first + lane), weight_of(task, first + warp_size + lane)};
#pragma unroll 1
    for (int i = 0; i < L::across; ++i) {
      float sums[8] = {};
#pragma unroll 2
      for (int eight = 0; eight < tile_tokens / 8; ++eight) {
        const bool there = first + 8 * eight + row < in.tokens;
        const uint4 values = map(tile() + eight * steps.depth + i * steps.column, there);
        const float weight = __shfl_sync(all_lanes, eight < 4 ? weights[0] : weights[1], 8 * (eight % 4) + row);
        add(sums, unpack<T>(values.x), weight, 0);
        add(sums, unpack<T>(values.y), weight, 2);
        add(sums, unpack<T>(values.z), weight, 4);
        add(sums, unpack<T>(values.w), weight, 6);
      }
#pragma unroll
      for (int c = 0; c < 8; ++c) {
#pragma unroll
        for (int bits = 4; bits < warp_size; bits *= 2) sums[c] += __shfl_xor_sync(all_lanes, sums[c], bits);
        if (row == 0) total[32 * i + 8 * lane + c] += sums[c];
      }
    }
  }
  __device__ float weight_of(const Task& task, int token) const {
    if (token >= in.tokens) return 0.0f;
    const int64_t at = task.tokens_before + token;
    return (in.w ? in.w[at] : 1.0f) * (in.e ? in.e[at] : 1.0f);
  }
  static __device__ void add(float (&sums)[8], float2 values, float weight, int at) {
    sums[at] = fmaf(values.x, weight, sums[at]);
    sums[at + 1] = fmaf(values.y, weight, sums[at + 1]);
  }

  __device__ void finish_tile(const Task& task, int number, float* total) const {
    if (has_b() && maps_b) return map_and_add(task, number, total);
    if (!has_b() && maps_x_and_a && in.mapped) map_rows(tile(), number * tile_tokens, tile_tokens / 8);
  }

  // Everything that it has copied is waited for before any of it is shown, as a fence would wait for it anyhow.
  __device__ void run() const {
    for (int number = static_cast<int>(blockIdx.x), count = 0; number < in.tasks;
         number += static_cast<int>(gridDim.x), ++count) {
      const Task task(in, number);
      float* const total = static_cast<float*>(static_cast<void*>(shared + L::totals_at)) +
                           (count % 2 * stages + stage()) * L::head;
      const bool has_tile = stage() < task.tiles;
      if (has_tile) {
        if (count > 0) meet(empty + slot, at_a_slot);
        copy_tile(task, stage());
        // What the task before the last one had here has been read: the groups have come to the last one since.
        for (int i = lane; has_b() && maps_b && i < L::head; i += warp_size) total[i] = 0.0f;
        __syncwarp();
      }
      if (count > 0) meet(x_empty + group(), at_x);
      const int first = task.begin + group() * tile_tokens + first_of_x();
      copy(own_x(), in.x, in.x_stride, task, first, eights_of_x);
      commit_copies();
      wait_for_copies<0>();
      if (maps_x_and_a && in.mapped) map_rows(own_x(), first, eights_of_x);
      if (has_tile) finish_tile(task, stage(), total);
      show_to_group_products();
      arrive(x_full + group(), at_x);
      if (has_tile) arrive(full + slot, at_a_slot);
      for (int tile = stage() + stages; tile < task.tiles; tile += stages) {
        meet(empty + slot, at_a_slot);
        copy_tile(task, tile);
        commit_copies();
        wait_for_copies<0>();
        finish_tile(task, tile, total);
        show_to_group_products();
        arrive(full + slot, at_a_slot);
      }
    }
  }

  const PairsIn<T>& in;
  char* shared;
  int slot, lane, row, own;
};

// Transposes words[lane mod 4][i] over the four lanes that hold a row: of packs of 8 channels, one a lane, come
// the neighbours that each lane has of four tiles of a product, and back.
__device__ __forceinline__ void exchange_in_quad(unsigned (&words)[4]) {
  const int lane = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int bit = 1; bit <= 2; ++bit) {
    const bool upper = (lane & bit) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      const unsigned got = __shfl_xor_sync(all_lanes, upper ? words[i] : words[i + bit], bit);
      words[i] = upper ? got : words[i];
      words[i + bit] = upper ? words[i + bit] : got;
    }
  }
}

// A warp of those that multiply: its rows lane/4 and lane/4 + 8 of 16.
template <class T, class L, PairsOf kind>
struct Multiplier {
  using Sums = float[L::chunks][L::width / 8][4];
  static constexpr bool weighted = kind == PairsOf::values || kind == PairsOf::keys;

  __device__ Multiplier(const PairsIn<T>& in_, char* shared_)
      : in(in_), shared(shared_), lane(static_cast<int>(threadIdx.x) % warp_size),
        warp(static_cast<int>(threadIdx.x) / warp_size), group(warp / 4),
        scale(1.0f / static_cast<float>(in.tokens)) {}

  __device__ const char* slot(int number) const { return shared + L::slots_at + number * L::tile_bytes; }

  // x·aᵀ
  __device__ void weigh(const char* a, float (&pairs)[8][4]) const {
    const char* const x = shared + group * L::tile_bytes;
    begin_group_products();
#pragma unroll
    for (int i = 0; i < L::head / 16; ++i) {
      const int at = i / 2 * steps.column + i % 2 * 32;
      multiply_rows<T>(pairs, x + at, a + at, steps, i > 0);
    }
    commit_group_products();
    wait_for_group_products<0>();
  }
  // Times w of the tokens that the columns are.
  __device__ void apply_weights(const Task& task, int tile, float (&pairs)[8][4]) const {
    const float* const w = in.w + task.tokens_before;
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int token = tile * tile_tokens + 8 * n + 2 * (lane % 4) + j;
        const float weight = token < in.tokens ? w[token] : 0.0f;
        pairs[n][j] *= weight;
        pairs[n][2 + j] *= weight;
      }
  }
  __device__ void multiply(const float (&pairs)[8][4], const char* b, Sums& sums, bool more) const {
    unsigned left[tile_tokens / 16][4];
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        left[n / 2][n % 2 * 2 + half] = pack<T>(pairs[n][2 * half], pairs[n][2 * half + 1]);
    begin_group_products();
#pragma unroll
    for (int i = 0; i < tile_tokens / 16; ++i)
#pragma unroll
      for (int chunk = 0; chunk < L::chunks; ++chunk)
        multiply_group<T>(sums[chunk], left[i],
                          b + 2 * i * steps.depth + chunk * (L::width / 32) * steps.column, steps,
                          more || i > 0);
    commit_group_products();
    wait_for_group_products<0>();
  }

  __device__ void run() const {
    for (int number = static_cast<int>(blockIdx.x), count = 0; number < in.tasks;
         number += static_cast<int>(gridDim.x), ++count) {
      const Task task(in, number);
      const bool last_task = number + static_cast<int>(gridDim.x) >= in.tasks;
      Sums sums = {};
      float z[2] = {};
      meet(x_full + group, at_x);
      for (int tile = 0; tile < task.tiles; ++tile) {
        const int of_a = tile % stages * 2, of_b = of_a + 1;
        const bool again = tile + stages < task.tiles || !last_task;  // whether the slots will be filled
        float pairs[8][4] = {};
        meet(full + of_a, at_a_slot);
        weigh(slot(of_a), pairs);
        if (again) arrive(empty + of_a, at_a_slot);
        if (tile + 1 == task.tiles && !last_task) arrive(x_empty + group, at_x);
        if constexpr (weighted) apply_weights(task, tile, pairs);
#pragma unroll
        for (int n = 0; kind == PairsOf::answers && n < 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) z[i / 2] += pairs[n][i];
        meet(full + of_b, at_a_slot);
        multiply(pairs, slot(of_b), sums, tile > 0);
        if (again) arrive(empty + of_b, at_a_slot);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) finish(task, count, half, sums, z[half]);
    }
  }

  // How a row of results ends. Every 32 channels are four tiles of the product, and a pack for each lane of the
  // four that have the row.
  struct Row {
    int token;
    bool there;
    const T* beside;
    T* y;
  };
  __device__ Row row_of(const Task& task, int half) const {
    const int token = task.begin + warp * 16 + lane / 4 + 8 * half;
    const auto at = [&](auto* data, int stride) {
      return rows_of(data, stride, task.state, in.heads, in.tokens, L::head) +
             static_cast<int64_t>(token) * stride + lane % 4 * 8;
    };
    return {token, token < in.tokens, in.beside ? at(in.beside, in.beside_stride) : nullptr,
            at(in.y, in.y_stride)};
  }
  // What stands beside each of the lane's neighbours of channels 32·i..
  __device__ void load_beside(const Row& row, int i, unsigned (&words)[4]) const {
    uint4 pack = make_uint4(0, 0, 0, 0);
    if (row.there && row.beside)
      pack = *static_cast<const uint4*>(static_cast<const void*>(row.beside + 32 * i));
    words[0] = pack.x, words[1] = pack.y, words[2] = pack.z, words[3] = pack.w;
    exchange_in_quad(words);
  }
  __device__ void store(const Row& row, int i, unsigned (&words)[4]) const {
    exchange_in_quad(words);
    if (row.there)
      *static_cast<uint4*>(static_cast<void*>(row.y + 32 * i)) =
          make_uint4(words[0], words[1], words[2], words[3]);
  }
  // p of a tile's column, of `half`'s row.
  __device__ float product(const Sums& sums, int tile, int column, int half) const {
    return scale * sums[tile / (L::width / 8)][tile % (L::width / 8)][2 * half + column];
  }
  __device__ void put_result(const Task& task, const Row& row, float value) const {
    if (in.result && lane % 4 == 0 && row.there) in.result[task.tokens_before + row.token] = value;
  }

  __device__ void finish(const Task& task, int count, int half, const Sums& sums, float z) const {
    const Row row = row_of(task, half);
    if constexpr (is_gradient_under_f(kind)) {
      finish_gradient(task, count, row, half, sums);
    } else {
      float inverse = 1.0f;
      if constexpr (kind == PairsOf::answers) {
        inverse = 1.0f / away_from_zero(scale * quad_sum(z), in.mapped);
        put_result(task, row, inverse);
      }
#pragma unroll
      for (int i = 0; i < L::across; ++i) {
        unsigned words[4];
        load_beside(row, i, words);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float2 former = unpack<T>(words[j]);
          words[j] = pack<T>(fmaf(product(sums, 4 * i + j, 0, half), inverse, former.x),
                             fmaf(product(sums, 4 * i + j, 1, half), inverse, former.y));
        }
        store(row, i, words);
      }
    }
  }

  __device__ float dot_with_features(const Row& row, int half, const Sums& sums) const {
    float dot = 0;
#pragma unroll
    for (int i = 0; i < L::across; ++i) {
      unsigned words[4];
      load_beside(row, i, words);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 f = unpack<T>(features<T>(words[j], in.mapped));
        dot = fmaf(f.x, product(sums, 4 * i + j, 0, half), fmaf(f.y, product(sums, 4 * i + j, 1, half), dot));
      }
    }
    return quad_sum(dot);
  }
  // Two neighbours of the total: what each slot of b has had of it.
  __device__ float2 total_of(const Task& task, int count, int channel) const {
    const float* const from = static_cast<const float*>(static_cast<const void*>(shared + L::totals_at)) +
                              count % 2 * stages * L::head + channel;
    float2 total = make_float2(from[0], from[1]);
    if (task.tiles > 1) {
      total.x += from[L::head];
      total.y += from[L::head + 1];
    }
    return make_float2(scale * total.x, scale * total.y);
  }
  __device__ void finish_gradient(const Task& task, int count, const Row& row, int half,
                                  const Sums& sums) const {
    float inverse = 1.0f, along = -1.0f;
    if constexpr (kind == PairsOf::queries) {
      if (row.there) inverse = in.inverse[task.tokens_before + row.token];
      along = dot_with_features(row, half, sums) * inverse;
      put_result(task, row, -along);
    }
#pragma unroll
    for (int i = 0; i < L::across; ++i) {
      unsigned words[4];
      load_beside(row, i, words);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 under = unpack<T>(words[j]);
        const float2 total = total_of(task, count, 32 * i + 8 * j + 2 * (lane % 4));
        const float one = inverse * (product(sums, 4 * i + j, 0, half) - along * total.x);
        const float other = inverse * (product(sums, 4 * i + j, 1, half) - along * total.y);
        words[j] =
            pack<T>(!in.mapped || under.x > 0.0f ? one : 0.0f, !in.mapped || under.y > 0.0f ? other : 0.0f);
      }
      store(row, i, words);
    }
  }

  const PairsIn<T>& in;
  char* shared;
  int lane, warp, group;
  float scale;
};

template <class T, class L, PairsOf kind>
__global__ void __launch_bounds__(threads, 1) multiply_all_pairs(PairsIn<T> in) {
  if (!group_products_built) return;
  LINNET_DYNAMIC_SHARED(shared);
  if (threadIdx.x < multipliers) {
    change_registers<registers_to_multiply(kind), true>();
    Multiplier<T, L, kind>(in, shared).run();
  } else {
    change_registers<registers_to_copy(kind), false>();
    Copier<T, L, kind>(in, shared, (static_cast<int>(threadIdx.x) - multipliers) / warp_size).run();
  }
}

template <class T, class L>
void launch_pairs(PairsOf kind, const PairsIn<T>& in) {
  const auto kernel = kind == PairsOf::answers  ? multiply_all_pairs<T, L, PairsOf::answers>
                      : kind == PairsOf::values ? multiply_all_pairs<T, L, PairsOf::values>
                      : kind == PairsOf::keys   ? multiply_all_pairs<T, L, PairsOf::keys>
                                                : multiply_all_pairs<T, L, PairsOf::queries>;
  launch(kernel, dim3(static_cast<unsigned>(std::min(in.tasks, multiprocessors()))), dim3(threads),
         L::shared_bytes, in);
}

// Until a card has shown where they are faster, they have to be asked for.
bool pairs_are_wanted() {
  const char* const way = std::getenv("LINNET_LINEAR_ATTENTION");
  if (way == nullptr || *way == '\0') return false;
  if (std::string_view(way) != "pairs")
    fail(std::string("LINNET_LINEAR_ATTENTION is \"") + way + "\"; known: pairs");
  return true;
}

}  // namespace

bool pairs_fit(const Shape& shape) {
  static const bool wanted = pairs_are_wanted();
  const int64_t head = shape.head_size;
  return wanted && has_group_products() && shape.dtype == DType::bf16 &&
         (head == 192 || head == 256 || head == 288) && 2 * shape.tokens <= 3 * head;
}

void multiply_pairs(const Shape& shape, PairsOf kind, const Pairs& step) {
  using T = bf16;  // f16 has no room for the products of all features
  const auto data_of = [](const ColumnView& view) { return view.view.as<T>() + view.first; };
  PairsIn<T> in{};
  in.x = data_of(step.x), in.x_stride = static_cast<int>(step.x.stride);
  in.a = data_of(step.a), in.a_stride = static_cast<int>(step.a.stride);
  in.b = data_of(step.b), in.b_stride = static_cast<int>(step.b.stride);
  in.y = data_of(step.y), in.y_stride = static_cast<int>(step.y.stride);
  if (is_gradient_under_f(kind))
    in.beside = data_of(step.under), in.beside_stride = static_cast<int>(step.under.stride);
  else if (step.add)
    in.beside = in.y, in.beside_stride = in.y_stride;
  in.w = step.w, in.e = step.e, in.inverse = step.inverse, in.result = step.result;
  in.tokens = static_cast<int>(shape.tokens);
  in.heads = static_cast<int>(shape.heads);
  in.tasks = static_cast<int>(shape.states() * divide_up(shape.tokens, groups * tile_tokens));
  in.mapped = shape.mapped;
  switch (shape.head_size) {
    case 192: return launch_pairs<T, Layout<192>>(kind, in);
    case 256: return launch_pairs<T, Layout<256>>(kind, in);
    default: return launch_pairs<T, Layout<288>>(kind, in);
  }
}

}  // namespace linnet::cuda::linear_attention
