// Products of tiles by tensor cores, as single instructions of a warp, and copies from global to shared memory
// that run beside the work. Fragments are as the PTX manual lays them out for mma.m16n8k16:
//   with group = lane/4 and pair = 2·(lane mod 4),
//   a[0] = A[group, pair..], a[1] = A[group+8, pair..], a[2] = A[group, pair+8..], a[3] = A[group+8, pair+8..]
//   b[0] = B[pair.., group], b[1] = B[pair+8.., group]            (two neighbours along the depth in 32 bits)
//   c[0], c[1] = C[group, pair..], c[2], c[3] = C[group+8, pair..]
#pragma once

#include "cuda/runtime.h"

namespace linnet::cuda {

/// Turing's tensor cores know no bf16; what is for both types is multiplied plainly there.
#if !defined(LINNET_CUDA_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool products_built = false;
#else
constexpr bool products_built = true;
#endif

/// body(a null T*) with the kernels' 16-bit type.
template <class Body>
void with_half(DType dtype, Body&& body) {
  dtype == DType::bf16 ? body(static_cast<bf16*>(nullptr)) : body(static_cast<f16*>(nullptr));
}

/// Two neighbours as 32 bits, the first in the lower half.
template <class T>
__device__ __forceinline__ unsigned pack(float low, float high) {
#ifndef LINNET_CUDA_EMULATED  // a single instruction
  if constexpr (std::is_same_v<T, bf16>) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const unsigned&>(both);
  } else if constexpr (std::is_same_v<T, f16>) {
    const __half2 both = __floats2half2_rn(low, high);
    return reinterpret_cast<const unsigned&>(both);
  }
#endif
  T a, b;
  assign(a, low);
  assign(b, high);
  return static_cast<unsigned>(a.bits) | static_cast<unsigned>(b.bits) << 16;
}
template <class T>
__device__ __forceinline__ float2 unpack(unsigned bits) {
  return make_float2(to_float(T{static_cast<uint16_t>(bits & 0xffffu)}),
                     to_float(T{static_cast<uint16_t>(bits >> 16)}));
}

#ifdef LINNET_CUDA_EMULATED

/// c (16×8, f32) += a (16×16)·b (16×8), of T = bf16 or f16.
template <class T>
void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  struct Both {
    unsigned a[2];
    unsigned b[2];
  };
  const int lane = emulation::lane(), group = lane / 4, pair = 2 * (lane % 4);
  float left[2][16], right[16][2];        // A's two rows and B's two columns that this lane's results need
  for (int half = 0; half < 2; ++half) {  // of the depth
    const Both own{{a[2 * half], a[2 * half + 1]}, {b[half], 0}};
    emulation::publish(&own, sizeof own);
    for (int p = 0; p < 4; ++p) {
      Both row, first, second;
      std::memcpy(&row, emulation::exchanged(4 * group + p), sizeof row);
      std::memcpy(&first, emulation::exchanged(4 * pair + p), sizeof first);
      std::memcpy(&second, emulation::exchanged(4 * (pair + 1) + p), sizeof second);
      for (int r = 0; r < 2; ++r) {
        const float2 values = unpack<T>(row.a[r]);
        left[r][8 * half + 2 * p] = values.x;
        left[r][8 * half + 2 * p + 1] = values.y;
      }
      const float2 one = unpack<T>(first.b[0]), other = unpack<T>(second.b[0]);
      right[8 * half + 2 * p][0] = one.x;
      right[8 * half + 2 * p + 1][0] = one.y;
      right[8 * half + 2 * p][1] = other.x;
      right[8 * half + 2 * p + 1][1] = other.y;
    }
  }
  for (int r = 0; r < 2; ++r)
    for (int j = 0; j < 2; ++j)
      for (int k = 0; k < 16; ++k) c[2 * r + j] += left[r][k] * right[k][j];
}

/// Four 8×8 tiles of 16-bit values from shared memory: lane i gives the address of row i mod 8 of tile i/8,
/// which is 16 bytes; r[t] gets of tile t the values (group, pair..), or, transposed, (pair.., group).
inline void load_tiles(unsigned (&r)[4], const void* row) {
  emulation::check_aligned(row, 16);
  emulation::publish(&row, sizeof row);
  const int lane = emulation::lane();
  for (int tile = 0; tile < 4; ++tile) {
    const char* from;
    std::memcpy(&from, emulation::exchanged(8 * tile + lane / 4), sizeof from);
    std::memcpy(&r[tile], from + 4 * (lane % 4), 4);
  }
}
inline void load_tiles_transposed(unsigned (&r)[4], const void* row) {
  emulation::check_aligned(row, 16);
  emulation::publish(&row, sizeof row);
  const int lane = emulation::lane();
  for (int tile = 0; tile < 4; ++tile) {
    const char *first, *second;
    std::memcpy(&first, emulation::exchanged(8 * tile + 2 * (lane % 4)), sizeof first);
    std::memcpy(&second, emulation::exchanged(8 * tile + 2 * (lane % 4) + 1), sizeof second);
    uint16_t low, high;
    std::memcpy(&low, first + 2 * (lane / 4), 2);
    std::memcpy(&high, second + 2 * (lane / 4), 2);
    r[tile] = static_cast<unsigned>(low) | static_cast<unsigned>(high) << 16;
  }
}

/// 16 bytes from global to shared memory, or zeros if not wanted; there after commit_copies() and
/// wait_for_copies<0>().
inline void copy_16(void* shared, const void* global, bool wanted = true) {
  emulation::check_aligned(shared, 16);
  if (wanted) emulation::check_aligned(global, 16);
  std::memset(shared, 0x7f, 16);  // from now on nothing may be read there
  emulation::begin_copy([=] {
    if (wanted)
      std::memcpy(shared, global, 16);
    else
      std::memset(shared, 0, 16);
  });
}
inline void commit_copies() { emulation::commit_copies(); }
/// Until at most so many of this thread's committed groups are under way.
template <int Most>
void wait_for_copies() {
  emulation::wait_for_copies(Most);
}

#else

template <class T>
__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, bf16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // Turing multiplies f16 alone, and half the depth at a time; bf16 takes lanes' values from one another.
  if constexpr (std::is_same_v<T, f16>) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
      asm volatile(
          "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};\n"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
  } else {
    const int lane = threadIdx.x % warp_size, group = lane / 4, pair = 2 * (lane % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        const float2 upper = unpack<T>(__shfl_sync(all_lanes, a[2 * half], 4 * group + p));
        const float2 lower = unpack<T>(__shfl_sync(all_lanes, a[2 * half + 1], 4 * group + p));
        const float2 one = unpack<T>(__shfl_sync(all_lanes, b[half], 4 * pair + p));
        const float2 other = unpack<T>(__shfl_sync(all_lanes, b[half], 4 * (pair + 1) + p));
        c[0] = fmaf(upper.x, one.x, fmaf(upper.y, one.y, c[0]));
        c[1] = fmaf(upper.x, other.x, fmaf(upper.y, other.y, c[1]));
        c[2] = fmaf(lower.x, one.x, fmaf(lower.y, one.y, c[2]));
        c[3] = fmaf(lower.x, other.x, fmaf(lower.y, other.y, c[3]));
      }
  }
#endif
}

__device__ __forceinline__ unsigned shared_address(const void* at) {
  return static_cast<unsigned>(__cvta_generic_to_shared(at));
}

__device__ __forceinline__ void load_tiles(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_tiles_transposed(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void copy_16(void* shared, const void* global, bool wanted = true) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
               "r"(wanted ? 16 : 0)
               : "memory");
#else
  *static_cast<uint4*>(shared) = wanted ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
#endif
}
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
template <int Most>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Most) : "memory");
#endif
}

#endif

}  // namespace linnet::cuda
