// What every kernel file includes: CUDA's language (or its emulation on a CPU), element types, reductions, and
// launching. Kernels are written for any architecture from 7.5 on; what only newer ones have stands in
// cuda/tensor_cores.h with a way around.
#pragma once

#include <cstdint>
#include <type_traits>

#ifdef LINNET_CUDA_EMULATED
#include "cuda/emulation/emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define LINNET_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) char name[]
#endif

#include "core/gpu.h"
#include "cuda/device.h"

namespace linnet::cuda {

/// 16-bit floats as kernels hold them: plain bits, so that they may lie in shared memory.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

#ifdef LINNET_CUDA_EMULATED
inline float to_float(bf16 x) {
  bfloat16 value;
  value.bits = x.bits;
  return static_cast<float>(value);
}
inline float to_float(f16 x) {
  float16 value;
  value.bits = x.bits;
  return static_cast<float>(value);
}
inline void assign(bf16& to, float x) { to.bits = bfloat16(x).bits; }
inline void assign(f16& to, float x) { to.bits = float16(x).bits; }
#else
__device__ __forceinline__ float to_float(bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ __forceinline__ float to_float(f16 x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ void assign(bf16& to, float x) {
  to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
__device__ __forceinline__ void assign(f16& to, float x) { to.bits = __half_as_ushort(__float2half_rn(x)); }
#endif
__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(double x) { return static_cast<float>(x); }
__device__ __forceinline__ void assign(float& to, float x) { to = x; }

/// N neighbours, read and written at once.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

/// body(a null T*) with the kernels' type of a float dtype: auto* p = ...; using T =
/// std::remove_pointer_t<...>.
template <class Body>
void with_float(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::f32: return body(static_cast<float*>(nullptr));
    case DType::bf16: return body(static_cast<bf16*>(nullptr));
    case DType::f16: return body(static_cast<f16*>(nullptr));
    default: wrong_type(dtype);
  }
}
template <class Pointer>
using Pointee = std::remove_pointer_t<Pointer>;

constexpr int warp_size = 32;
constexpr unsigned all_lanes = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(all_lanes, x, bits);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) x = fmaxf(x, __shfl_xor_sync(all_lanes, x, bits));
  return x;
}

/// The sum over all threads of a block of whole warps (at most 1024 threads), in every thread; the same order
/// always. A barrier before the next call is inside.
__device__ __forceinline__ float block_sum(float x) {
  __shared__ float sums[32];
  x = warp_sum(x);
  const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size, warps = blockDim.x / warp_size;
  if (lane == 0) sums[warp] = x;
  __syncthreads();
  float total = 0;
  for (int i = 0; i < warps; ++i) total += sums[i];
  __syncthreads();
  return total;
}

/// The architecture that this card runs kernels of, such as 80: its own, or an older one for which they were
/// built.
int architecture_of_kernels();
/// Whether this card has the products of groups of warps, and kernels were built with them
/// (cuda/group_products.h).
bool has_group_products();

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// The number of this thread over a one-dimensional grid, and of all threads.
__device__ __forceinline__ int64_t thread_number() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t thread_count() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

/// Puts a kernel onto the stream. Throws Error when it cannot run.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared, Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef LINNET_CUDA_EMULATED
  emulation::put([=] { emulation::run(grid, block, shared, [&] { kernel(static_cast<Params>(args)...); }); });
#else
  const cudaStream_t queue = stream();  // which also tells the thread its card
  if (shared > 48 * 1024)
    must(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
         "asking for shared memory");
  cudaLaunchConfig_t how{};
  how.gridDim = grid;
  how.blockDim = block;
  how.dynamicSmemBytes = shared;
  how.stream = queue;
  must(cudaLaunchKernelEx(&how, kernel, static_cast<Params>(args)...), "starting a kernel");
#endif
}

/// For kernels that walk over n things with thread_number() and thread_count(): enough threads to fill the
/// card.
template <class... Params, class... Args>
void launch_over(int64_t n, void (*kernel)(Params...), Args... args) {
  constexpr int64_t threads = 256;
  const int64_t most = int64_t{32} * multiprocessors();
  const int64_t blocks = divide_up(n, threads);
  launch(kernel, dim3(static_cast<unsigned>(blocks < most ? blocks : most)), dim3(threads), 0, args...);
}

}  // namespace linnet::cuda
