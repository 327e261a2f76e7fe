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

#include "ops/linear_attention_pairs_cuda.cuh"

namespace linnet::cuda::linear_attention {
namespace {

using namespace pairs;

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
