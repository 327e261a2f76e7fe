// The mean of f(a)ᵀ·b over the tokens of each state, by products of groups of warps (cuda/group_products.h): a
// block gathers a whole area of 192×192 of a state's matrix over a part of the tokens, in the registers of
// three groups. So heads of 192 come once from memory; of heads of 576 each token's a and b come three times,
// twice from the second-level cache.
#include "cuda/group_products.h"
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda::linear_attention {
namespace {

constexpr int groups = 3, area = 64 * groups;
constexpr int tokens_at_once = 64, stages = 4;
constexpr int packs = area / 8;  // of a token's a, and of its b
// Behind the groups that multiply, a warp for each stage copies: what it has copied has to be shown to the
// products, which would make a thread wait for copies to other stages, too.
constexpr int multipliers = groups * group_size, copiers = stages * warp_size, threads = multipliers + copiers;
constexpr int registers_to_multiply = 144, registers_to_copy = 80;
static_assert(multipliers * registers_to_multiply + copiers * registers_to_copy <= 65536);

// How a stage lies in shared memory: a, b, the thirds of the tokens' e as columns of one more right tile, and
// their weights.
constexpr SwizzledSteps steps = {1024, 1024 * tokens_at_once / 8};
constexpr BlockSteps extra_steps = {128, 0};
constexpr int b_at = groups * steps.column, extra_at = 2 * b_at,
              weights_at = extra_at + 128 * tokens_at_once / 8;
constexpr int stage_bytes = weights_at + 1024;
static_assert(tokens_at_once * sizeof(float) <= 1024);
constexpr size_t shared_bytes = stages * stage_bytes;
// Barriers: a stage is full; a stage is empty.
constexpr int full = 1, empty = full + stages, at_a_stage = multipliers + warp_size;

template <class T>
struct GatherGroups {
  const T *a, *b;
  int a_stride, b_stride;
  const float *w, *e;
  float* shares;
  int tokens, heads, head_size, parts, part_tokens;
  bool mapped;
};

// What a block gathers: an area, over a part of a state's tokens.
struct Task {
  template <class T>
  __device__ explicit Task(const GatherGroups<T>& in) {
    const int across = in.head_size / area;
    int task = static_cast<int>(blockIdx.x);
    first_row = task % across * area;
    task /= across;
    first_column = task % across * area;
    task /= across;
    part = task % in.parts;
    state = task / in.parts;
    begin = part * in.part_tokens;
    tokens = min(in.tokens - begin, in.part_tokens);
    count = (tokens + tokens_at_once - 1) / tokens_at_once;
  }
  int first_row, first_column, part, state, begin, tokens;
  int count;  // of times that stages are filled
};

// A warp that fills one of the stages.
template <class T, bool Weighted>
struct Copier {
  static constexpr int turns = 2 * 2 * packs / warp_size;  // in which the warp copies two tokens
  static_assert(2 * 2 * packs % warp_size == 0);

  __device__ Copier(const GatherGroups<T>& in_, const Task& task_, char* shared, int number_)
      : in(in_), task(task_), stage(shared + number_ * stage_bytes), number(number_),
        lane(static_cast<int>(threadIdx.x) % warp_size) {
#pragma unroll
    for (int turn = 0; turn < turns; ++turn) {
      const int token = token_of(turn), pack = pack_of(turn);
      const bool of_a = pack < packs;
      stride[turn] = 2 * (of_a ? in.a_stride : in.b_stride);
      from[turn] =
          rows_of(of_a ? in.a : in.b, stride[turn] / 2, task.state, in.heads, in.tokens, in.head_size) +
          (of_a ? task.first_row + pack * 8 : task.first_column + (pack - packs) * 8) +
          static_cast<int64_t>(task.begin + number * tokens_at_once + token) * (stride[turn] / 2);
    }
    for (int i = lane; i < tokens_at_once; i += warp_size)  // only three columns are ever written again
      *static_cast<uint4*>(static_cast<void*>(stage + extra_at + i * 16)) = make_uint4(0, 0, 0, 0);
  }

  __device__ int token_of(int turn) const { return (turn * warp_size + lane) / (2 * packs); }
  __device__ int pack_of(int turn) const { return (turn * warp_size + lane) % (2 * packs); }

  __device__ void fill(int step) {
    const int left = task.tokens - step * tokens_at_once;
    for (int eight = 0; eight < tokens_at_once / 8; ++eight) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int turn = 0; turn < turns; ++turn) {
          const int token = 2 * i + token_of(turn), pack = pack_of(turn);
          copy_16(stage + pack / 8 * steps.column + eight * steps.depth + swizzled(token, pack % 8), from[turn],
                  8 * eight + token < left);
          from[turn] += stride[turn];
        }
    }
    commit_copies();
#pragma unroll
    for (int turn = 0; turn < turns; ++turn)
      from[turn] += static_cast<int64_t>(stride[turn]) * (tokens_at_once / 2 * (stages - 1));
#pragma unroll
    for (int i = lane; i < tokens_at_once; i += warp_size) {
      const int64_t at = static_cast<int64_t>(task.state) * in.tokens + task.begin + step * tokens_at_once + i;
      const bool there = i < left;
      const float e = !there ? 0.0f : in.e ? in.e[at] : 1.0f;
      put_thirds(e, static_cast<T*>(static_cast<void*>(stage + extra_at)) + i * 8, 1);
      if (Weighted) static_cast<float*>(static_cast<void*>(stage + weights_at))[i] = there ? in.w[at] : 0.0f;
    }
    wait_for_copies<0>();
    show_to_group_products();
  }

  __device__ void run() {
    for (int step = number; step < task.count; step += stages) {
      if (step >= stages) meet(empty + number, at_a_stage);
      fill(step);
      arrive(full + number, at_a_stage);
    }
  }

  const GatherGroups<T>& in;
  const Task& task;
  char* stage;
  int number, lane;
  const T* from[turns];
  int stride[turns];  // of two tokens
};

// A warp of those that multiply.
template <class T, bool Weighted>
struct Multiplier {
  __device__ Multiplier(const GatherGroups<T>& in_, const Task& task_, char* shared_)
      : in(in_), task(task_), shared(shared_), lane(static_cast<int>(threadIdx.x) % warp_size),
        warp(static_cast<int>(threadIdx.x) / warp_size) {}

  // f(a)ᵀ·w of the warp's 16 rows for 16 tokens from k on.
  __device__ void load_left(const char* stage, int k, unsigned (&left)[4]) const {
    load_tiles_transposed(left, stage + warp / 4 * steps.column + (k / 8 + lane / 16) * steps.depth +
                                    swizzled(lane % 8, warp % 4 * 2 + lane / 8 % 2));
#pragma unroll
    for (int i = 0; i < 4; ++i) left[i] = features<T>(left[i], in.mapped);
    if constexpr (Weighted) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* of_tokens = static_cast<const float*>(static_cast<const void*>(stage + weights_at)) + k +
                                 8 * half + 2 * (lane % 4);
        const float first = of_tokens[0], second = of_tokens[1];
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          const float2 x = unpack<T>(left[i]);
          left[i] = pack<T>(x.x * first, x.y * second);
        }
      }
    }
  }

  __device__ void multiply(const char* stage, float (&sums)[area / 8][4], float (&total)[1][4]) const {
    constexpr int depth = tokens_at_once / 16;
    unsigned left[depth][4];
#pragma unroll
    for (int i = 0; i < depth; ++i) load_left(stage, 16 * i, left[i]);
    begin_group_products();
#pragma unroll
    for (int i = 0; i < depth; ++i) {
      multiply_group<T>(sums, left[i], stage + b_at + 2 * i * steps.depth, steps);
      multiply_group<T>(total, left[i], stage + extra_at + 2 * i * extra_steps.depth, extra_steps);
    }
    commit_group_products();
    wait_for_group_products<0>();
  }

  __device__ void run() {
    float sums[area / 8][4] = {}, total[1][4] = {};
    for (int step = 0; step < task.count; ++step) {
      const int number = step % stages;
      meet(full + number, at_a_stage);
      multiply(shared + number * stage_bytes, sums, total);
      if (step + stages < task.count) arrive(empty + number, at_a_stage);
    }
    store(sums, total);
  }

  __device__ void store(const float (&sums)[area / 8][4], const float (&total)[1][4]) const {
    const int n = in.head_size;
    float* share = in.shares + (static_cast<int64_t>(task.state) * in.parts + task.part) * (n + 1) * n;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = task.first_row + warp * 16 + lane / 4 + 8 * half;
      const float sum = quad_sum(total[0][2 * half] + total[0][2 * half + 1]);
      if (task.first_column == 0 && lane % 4 == 0) share[static_cast<int64_t>(n) * n + row] = sum;
      float* row_at = share + static_cast<int64_t>(row) * n + task.first_column + 2 * (lane % 4);
#pragma unroll
      for (int j = 0; j < area / 8; ++j)
        store_pack(row_at + 8 * j, Pack<float, 2>{{sums[j][2 * half], sums[j][2 * half + 1]}});
    }
  }

  const GatherGroups<T>& in;
  const Task& task;
  char* shared;
  int lane, warp;
};

template <class T, bool Weighted>
__global__ void __launch_bounds__(threads, 1) gather_by_groups_of_warps(GatherGroups<T> in) {
  if (!group_products_built) return;
  LINNET_DYNAMIC_SHARED(shared);
  const Task task(in);
  if (threadIdx.x < multipliers) {
    change_registers<registers_to_multiply, true>();
    Multiplier<T, Weighted>(in, task, shared).run();
  } else {
    change_registers<registers_to_copy, false>();
    Copier<T, Weighted>(in, task, shared, (static_cast<int>(threadIdx.x) - multipliers) / warp_size).run();
  }
}

template <class T>
void gather(const Shape& shape, const Gather& step) {
  const int64_t across = shape.head_size / area, blocks = shape.states() * across * across;
  const int64_t part_tokens = divide_up(shape.tokens, parts_of(shape.tokens, blocks));
  const int64_t parts = divide_up(shape.tokens, part_tokens);
  const Scratch shares(static_cast<size_t>(shape.states() * parts * (shape.head_size + 1) * shape.head_size) *
                       sizeof(float));
  const GatherGroups<T> in{step.a.view.as<T>() + step.a.first,
                           step.b.view.as<T>() + step.b.first,
                           static_cast<int>(step.a.stride),
                           static_cast<int>(step.b.stride),
                           step.w,
                           step.e,
                           shares.as<float>(),
                           static_cast<int>(shape.tokens),
                           static_cast<int>(shape.heads),
                           static_cast<int>(shape.head_size),
                           static_cast<int>(parts),
                           static_cast<int>(part_tokens),
                           shape.mapped};
  launch(step.w ? gather_by_groups_of_warps<T, true> : gather_by_groups_of_warps<T, false>,
         dim3(static_cast<unsigned>(blocks * parts)), dim3(threads), shared_bytes, in);
  add_shares(shape, in.shares, parts, static_cast<T*>(step.matrix), step.total);
}

}  // namespace

bool gather_by_groups(const Shape& shape, const Gather& step) {
  if (shape.head_size % area != 0 || !has_group_products()) return false;
  with_half(shape.dtype, [&](auto* type) { gather<Pointee<decltype(type)>>(shape, step); });
  return true;
}

}  // namespace linnet::cuda::linear_attention
