// What the tensor cores' kernels of linear attention share. Blocks are 8 warps, 2 (rows) × 4 (columns), each of
// which multiplies some 16×16 by `Wide` 16×8 tiles; operands come through a ring of stages in shared memory.
#pragma once

#include "cuda/cells.h"
#include "cuda/tensor_cores.h"
#include "ops/linear_attention_cuda.h"

namespace linnet::cuda::linear_attention {

constexpr int tile_threads = 256, warp_rows = 2, warp_columns = 4;
constexpr int stage_depth = 32;  // of a product, at a time
constexpr int padding = 8;  // behind each row in shared memory: 16 bytes, so that 8 rows meet no bank twice

/// Turing's tensor cores know no bf16; there all is multiplied plainly.
#if !defined(LINNET_CUDA_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool tiles_built = false;
#else
constexpr bool tiles_built = true;
#endif

/// How many 8-wide tiles a warp takes, so that 4 warps cover a head; 0 if none is made for that.
constexpr int wide_for(int64_t head_size) {
  for (const int wide : {1, 2, 4, 6, 8, 9})
    if (head_size <= 32 * wide) return wide;
  return 0;
}

/// body(a std::integral_constant) with the `Wide` for heads of this size.
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

/// body(a null T*) with the kernels' 16-bit type.
template <class Body>
void with_half(DType dtype, Body&& body) {
  dtype == DType::bf16 ? body(static_cast<bf16*>(nullptr)) : body(static_cast<f16*>(nullptr));
}

/// Shared memory of a block, in bytes: a ring of stages, in whose place a tile of results lies later, or behind
/// it if the tile is wanted apart and the card has room for both; then tables. No stages: it does not fit.
struct SharedPlan {
  int stages = 0;
  size_t tile_at = 0, tables_at = 0, bytes = 0;
};
SharedPlan plan_shared(size_t stage, size_t tile, size_t tables, bool apart);

/// Until the oldest of a ring's stages has arrived, while those behind it are under way.
__device__ __forceinline__ void wait_for_stage(int stages) {
  if (stages >= 4)
    wait_for_copies<2>();
  else if (stages == 3)
    wait_for_copies<1>();
  else
    wait_for_copies<0>();
}

/// Rows × Columns values to shared memory, zeros where there are no more than `rows` and `columns`; all
/// threads.
template <int Rows, int Columns, class T>
__device__ __forceinline__ void copy_tile(T* to, int to_stride, const T* from, int64_t from_stride, int rows,
                                          int columns) {
  constexpr int packs = Columns / 8;
#pragma unroll
  for (int first = 0; first < Rows * packs; first += tile_threads) {
    const int i = first + threadIdx.x, row = i / packs, column = i % packs * 8;
    if (Rows * packs % tile_threads == 0 || i < Rows * packs)
      copy_16(to + row * to_stride + column, from + row * from_stride + column, row < rows && column < columns);
  }
}

/// And back, what there is of it.
template <int Rows, int Columns, class T>
__device__ __forceinline__ void store_tile(const T* from, int from_stride, T* to, int64_t to_stride, int rows,
                                           int columns) {
  constexpr int packs = Columns / 8;
  for (int i = threadIdx.x; i < Rows * packs; i += tile_threads) {
    const int row = i / packs, column = i % packs * 8;
    if (row < rows && column < columns)
      store_pack(to + row * to_stride + column, load_pack<8>(from + row * from_stride + column));
  }
}

/// Two neighbours as a product's instruction takes them.
template <class T>
__device__ __forceinline__ unsigned& pair_at(T* at) {
  return *static_cast<unsigned*>(static_cast<void*>(at));
}

/// Of two neighbours; as on the CPU, rounded. NaN stays NaN.
template <class T>
__device__ __forceinline__ unsigned features(unsigned pair) {
#if !defined(LINNET_CUDA_EMULATED) && __CUDA_ARCH__ >= 800
  unsigned y;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("max.NaN.bf16x2 %0, %1, %2;\n" : "=r"(y) : "r"(pair), "r"(0u));
    asm("fma.rn.bf16x2 %0, %0, %1, %2;\n" : "+r"(y) : "r"(0x3f803f80u), "r"(0x35863586u));  // y·1 + 1e-6
  } else {
    asm("max.NaN.f16x2 %0, %1, %2;\n" : "=r"(y) : "r"(pair), "r"(0u));
    asm("add.rn.f16x2 %0, %0, %1;\n" : "+r"(y) : "r"(0x00110011u));
  }
  return y;
#else
  const float2 x = unpack<T>(pair);
  return pack<T>(feature(x.x), feature(x.y));
#endif
}

/// x as a sum of three values of T, which hold all of an f32's 24 bits (of f16 as many as its range allows):
/// the which-th of them, 0 beyond. A product with a column of f32s is one with these three columns.
template <class T>
__device__ __forceinline__ float third_of(float x, int which) {
  float third = 0;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    T rounded;
    assign(rounded, x);
    if (i == which) third = to_float(rounded);
    x -= to_float(rounded);
  }
  return third;
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
SharedPlan plan_gather(int wide);
SharedPlan plan_rows(int wide, bool transposed);

}  // namespace linnet::cuda::linear_attention
