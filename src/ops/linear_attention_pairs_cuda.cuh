// What the kernel of linear attention by pairs (linear_attention_pairs_cuda.cu) lays into shared memory, and
// the warps that bring it there.
#pragma once

#include "cuda/group_products.h"
#include "ops/linear_attention_pairs_cuda.h"
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda::linear_attention::pairs {

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

}  // namespace linnet::cuda::linear_attention::pairs
