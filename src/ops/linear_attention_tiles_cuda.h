// What the tensor cores' kernels of linear attention share. Each warp of a block multiplies some 16×16 by some
// 16×8 tiles; operands come through a ring of stages in shared memory. A thread applies the feature map to what
// it has copied itself, before the barrier that shows it to the others, so that the loops of products hold
// nothing else.
#pragma once

#include "cuda/cells.h"
#include "cuda/tensor_cores.h"
#include "ops/linear_attention_cuda.h"

namespace linnet::cuda::linear_attention {

constexpr int stage_depth = 32;  // of a product, at a time
constexpr int padding = 8;  // behind each row in shared memory: 16 bytes, so that 8 rows meet no bank twice

/// body(first row, column, rows at once, constant) for the packs of 8 values that are this thread's in tiles of
/// Rows × Columns. Those of a row are dealt out as one or two powers of 2, so that hardly a thread has to ask
/// whether one is its own.
template <int Threads, int Rows, int First, int Packs, class Body>
__device__ __forceinline__ void for_packs_of(Body body) {
  constexpr int at_once = Threads / Packs;
  static_assert((Packs & (Packs - 1)) == 0);
  const int row = static_cast<int>(threadIdx.x) / Packs,
            column = (First + static_cast<int>(threadIdx.x) % Packs) * 8;
  if (at_once > Rows && row >= Rows) return;
  body(row, column, std::integral_constant<int, at_once>());
}
template <int Threads, int Rows, int Columns, class Body>
__device__ __forceinline__ void for_columns(Body body) {
  constexpr int packs = Columns / 8, most = packs >= 32 ? 32 : packs >= 16 ? 16 : packs >= 8 ? 8 : 4;
  for_packs_of<Threads, Rows, 0, most>(body);
  if constexpr (packs > most) for_packs_of<Threads, Rows, most, packs - most>(body);
}

/// Begins to copy Rows × Columns values; zeros where there are no more than `rows` and `columns`.
template <int Threads, int Rows, int Columns, class T>
__device__ __forceinline__ void copy_rows(T* to, int to_stride, const T* from, int from_stride, int rows,
                                          int columns) {
  for_columns<Threads, Rows, Columns>([&](int first, int column, auto at_once) {
    constexpr int step = decltype(at_once)::value;
    static_assert(step > Rows || Rows % step == 0);
    const T* at = from + static_cast<int64_t>(first) * from_stride + column;
    const int left = column < columns ? rows - first : 0;
#pragma unroll
    for (int row = 0; row < Rows; row += step)
      copy_16(to + (first + row) * to_stride + column, at + static_cast<int64_t>(row * from_stride),
              row < left);
  });
}

/// And back, what there is of it.
template <int Threads, int Rows, int Columns, class T>
__device__ __forceinline__ void store_rows(const T* from, int from_stride, T* to, int to_stride, int rows,
                                           int columns) {
  for_columns<Threads, Rows, Columns>([&](int first, int column, auto at_once) {
    if (column >= columns) return;
#pragma unroll
    for (int row = first; row < Rows; row += decltype(at_once)::value)
      if (row < rows)
        store_pack(to + static_cast<int64_t>(row) * to_stride + column,
                   load_pack<8>(from + row * from_stride + column));
  });
}

/// Two neighbours as a product's instruction takes them.
template <class T>
__device__ __forceinline__ unsigned& pair_at(T* at) {
  return *static_cast<unsigned*>(static_cast<void*>(at));
}

/// f of two neighbours, if mapped; as on the CPU, rounded. NaN stays NaN. Without branches, which would keep
/// the compiler from moving it.
template <class T>
__device__ __forceinline__ unsigned features(unsigned pair, bool mapped) {
#if !defined(LINNET_CUDA_EMULATED) && __CUDA_ARCH__ >= 800
  unsigned y;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("max.NaN.bf16x2 %0, %1, %2;\n" : "=r"(y) : "r"(pair), "r"(mapped ? 0u : 0xff80ff80u));
    asm("fma.rn.bf16x2 %0, %0, %1, %2;\n"  // y·1 + 1e-6, or −0
        : "+r"(y)
        : "r"(0x3f803f80u), "r"(mapped ? 0x35863586u : 0x80008000u));
  } else {
    asm("max.NaN.f16x2 %0, %1, %2;\n" : "=r"(y) : "r"(pair), "r"(mapped ? 0u : 0xfc00fc00u));
    asm("add.rn.f16x2 %0, %0, %1;\n" : "+r"(y) : "r"(mapped ? 0x00110011u : 0x80008000u));
  }
  return y;
#else
  const float2 x = unpack<T>(pair);
  return mapped ? pack<T>(feature(x.x), feature(x.y)) : pair;
#endif
}

/// x as a sum of three values of T, which hold all of an f32's 24 bits (of f16 as many as its range allows), to
/// every `stride`-th place. A product with a column of f32s is one with these three columns.
template <class T>
__device__ __forceinline__ void put_thirds(float x, T* to, int stride) {
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    assign(to[i * stride], x);
    x -= to_float(to[i * stride]);
  }
}

/// Columns of thirds, (4, stride) with zeros in the last row, as the right operand of a product.
template <class T>
__device__ __forceinline__ void load_thirds(unsigned (&right)[2], T* thirds, int stride) {
  const int lane = threadIdx.x % warp_size;
  T* const from = thirds + min(lane / 4, 3) * stride + 2 * (lane % 4);
  right[0] = pair_at(from);
  right[1] = pair_at(from + 8);
}

/// left[which], where `which` differs between warps and the array should stay in registers.
template <int Tall>
__device__ __forceinline__ void choose(unsigned (&chosen)[4], const unsigned (&left)[Tall][4], int which) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    chosen[i] = left[0][i];
#pragma unroll
    for (int m = 1; m < Tall; ++m) chosen[i] = which == m ? left[m][i] : chosen[i];
  }
}

/// Over the four lanes that hold a row of a fragment.
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(all_lanes, x, 1);
  return x + __shfl_xor_sync(all_lanes, x, 2);
}

/// sums += left·right for a warp's fragments of 16 of the depth, right's read by load(pairs, 8·n) for two
/// tiles.
template <class T, int Tall, int Wide, class Load>
__device__ __forceinline__ void multiply_fragments(const unsigned (&left)[Tall][4], Load load,
                                                   float (&sums)[Tall][Wide][4]) {
#pragma unroll
  for (int n = 0; n < Wide; n += 2) {
    unsigned pairs[4];
    load(pairs, n);
    const unsigned first[2] = {pairs[0], pairs[1]}, second[2] = {pairs[2], pairs[3]};
#pragma unroll
    for (int m = 0; m < Tall; ++m) mma<T>(sums[m][n], left[m], first);
    if (n + 1 < Wide) {
#pragma unroll
      for (int m = 0; m < Tall; ++m) mma<T>(sums[m][n + 1 < Wide ? n + 1 : n], left[m], second);
    }
  }
}

void gather_by_tiles(const Shape& shape, const Gather& step);
void answer_by_tiles(const Shape& shape, const Answer& step);
void gradient_by_tiles(const Shape& shape, const Gradient& step);
/// The same by products of groups of warps (linear_attention_gather_groups_cuda.cu,
/// linear_attention_rows_groups_cuda.cu); false, with nothing done, if the card has no such products or heads
/// are of another size.
bool gather_by_groups(const Shape& shape, const Gather& step);
bool answer_by_groups(const Shape& shape, const Answer& step);
bool gradient_by_groups(const Shape& shape, const Gradient& step);
/// Shared memory of a block, in bytes.
size_t gather_bytes(int64_t head_size);
size_t rows_bytes(int64_t head_size);

}  // namespace linnet::cuda::linear_attention
