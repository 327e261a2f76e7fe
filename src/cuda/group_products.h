// Products of tiles by a group of four warps, as single instructions that run beside the group's other work:
// what Hopper has (compute capability 9.0 alone: wgmma is in no other architecture). The left tile is in
// registers, each warp's 16 rows as the fragments of cuda/tensor_cores.h; the right one in shared memory.
#pragma once

#include "cuda/tensor_cores.h"

namespace linnet::cuda {

/// Whether this compilation has them: not that of PTX, which is for cards to come.
#if defined(LINNET_CUDA_EMULATED) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool group_products_built = true;
#else
constexpr bool group_products_built = false;
#endif

constexpr int group_size = 4 * warp_size;

/// How a right tile lies in shared memory. Either in blocks of 8×8 values, in which 8 rows of the depth stand
/// one after the other, each of 8 columns (16 bytes); bytes from one block to the next along the depth and
/// across columns, which are multiples of 16.
struct BlockSteps {
  int depth, column;
};
/// Or in blocks of 8×64, whose rows are 128 bytes and whose 16-byte packs are swizzled: that with number i of
/// row r stands in the place of i ^ r. So they begin at multiples of 1024 bytes. Copies to shared memory are
/// fast if neighbouring threads fill rows of 128 bytes.
struct SwizzledSteps {
  int depth, column;
};
__host__ __device__ constexpr int swizzled(int row, int pack) { return row % 8 * 128 + (pack ^ row % 8) * 16; }

/// Where the pack of columns from n on of row k begins, n a multiple of 8.
__host__ __device__ constexpr int place_of(BlockSteps steps, int k, int n) {
  return n / 8 * steps.column + k / 8 * steps.depth + k % 8 * 16;
}
__host__ __device__ constexpr int place_of(SwizzledSteps steps, int k, int n) {
  return n / 64 * steps.column + k / 8 * steps.depth + swizzled(k, n % 64 / 8);
}

#ifdef LINNET_CUDA_EMULATED

inline void begin_group_products() {}
inline void commit_group_products() { emulation::commit_products(); }
template <int Most>
void wait_for_group_products() {
  emulation::wait_for_products(Most);
}
inline void show_to_group_products() { emulation::show_to_products(); }
inline void meet(int barrier, int threads) { emulation::come_to_barrier(barrier, threads, true); }
inline void arrive(int barrier, int threads) { emulation::come_to_barrier(barrier, threads, false); }
template <int Registers, bool More>
void change_registers() {}

// A product as one of its lanes does it: of two rows, and of two columns in every eight.
template <class T, int N, class Steps>
struct LaneProduct {
  float (&c)[N][4];
  const unsigned (&a)[4];
  unsigned a_before[4];
  const char* b;
  Steps steps;
  bool more;
  float left[2][16];

  LaneProduct(float (&c_)[N][4], const unsigned (&a_)[4], const void* b_, Steps steps_, bool more_)
      : c(c_), a(a_), b(static_cast<const char*>(b_) + 4 * (emulation::lane() % 4)), steps(steps_),
        more(more_) {
    emulation::check_aligned(b_, std::is_same_v<Steps, SwizzledSteps> ? 1024 : 16);
    std::memcpy(a_before, a, sizeof a);
    emulation::publish(a, sizeof a);
    for (int p = 0; p < 4; ++p) {
      unsigned other[4];
      std::memcpy(other, emulation::exchanged(emulation::lane() / 4 * 4 + p), sizeof other);
      for (int i = 0; i < 4; ++i) {
        const float2 values = unpack<T>(other[i]);
        left[i % 2][8 * (i / 2) + 2 * p] = values.x;
        left[i % 2][8 * (i / 2) + 2 * p + 1] = values.y;
      }
    }
  }

  unsigned right(int k, int n) const {
    unsigned values;
    std::memcpy(&values, b + place_of(steps, k, 8 * n), sizeof values);
    return values;
  }
  void look(bool again) const {
    for (int i = 0; emulation::finds_races && i < 16 * N; ++i)
      emulation::product_reads(b + place_of(steps, i % 16, i / 16 * 8), again);
  }
  void operator()() const {
    look(true);
    if (std::memcmp(a_before, a, sizeof a) != 0) fail("a product's left tile was changed before it was done");
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < 2; ++r)
        for (int j = 0; j < 2; ++j) {
          float& sum = c[n][2 * r + j];
          if (!more) sum = 0.0f;
          for (int k = 0; k < 16; ++k) {
            const float2 values = unpack<T>(right(k, n));
            sum += left[r][k] * (j == 0 ? values.x : values.y);
          }
        }
  }
};

/// c (64×8·N, f32) += a (64×16)·b (16×8·N), of T; not more, but that alone, if told so. Until it is waited for,
/// a and b are not to be changed, and c neither that nor read.
template <class T, int N, class Steps>
void multiply_group(float (&c)[N][4], const unsigned (&a)[4], const void* b, Steps steps, bool more = true) {
  LaneProduct<T, N, Steps> product(c, a, b, steps, more);
  emulation::begin_to_read();
  product.look(false);
  emulation::begin_product(std::move(product));
}

#else

/// Before the first product of a batch, and when registers of its operands were written since.
__device__ __forceinline__ void begin_group_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#endif
}
__device__ __forceinline__ void commit_group_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
#endif
}
/// Until at most so many committed batches are under way: results are there, operands may change.
template <int Most>
__device__ __forceinline__ void wait_for_group_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Most) : "memory");
#endif
}
/// What this thread has written to shared memory (copies that it has waited for, too), after the next barrier.
/// Waits for all copies of this thread, also later ones.
__device__ __forceinline__ void show_to_group_products() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

/// Barriers of parts of a block, 1 to 15, which open when so many threads (whole warps) have come: meet() waits
/// for that, arrive() does not.
__device__ __forceinline__ void meet(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}
/// How many registers a thread has from here on; all warps of a group call it.
template <int Registers, bool More>
__device__ __forceinline__ void change_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if constexpr (More)
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(Registers));
  else
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(Registers));
#endif
}

#define LINNET_SUMS(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define LINNET_SUMS_4(i) LINNET_SUMS(i), LINNET_SUMS(i + 1), LINNET_SUMS(i + 2), LINNET_SUMS(i + 3)
#define LINNET_SUMS_16(i) LINNET_SUMS_4(i), LINNET_SUMS_4(i + 4), LINNET_SUMS_4(i + 8), LINNET_SUMS_4(i + 12)
#define LINNET_LEFT "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
#define LINNET_NAMES_72                                          \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "           \
  "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, " \
  "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, " \
  "%60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71"
#define LINNET_NAMES_96                                          \
  LINNET_NAMES_72                                                \
  ", "                                                           \
  "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, " \
  "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
// One instruction of so many COLUMNS: how the operands are numbered depends on the number of sums, which come
// first.
#define LINNET_GROUP_PRODUCT(TYPE, COLUMNS, NAMES, LEFT, RIGHT, MORE, ...)                                 \
  asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, " MORE                                              \
               ", 0;\n"                                                                                    \
               "wgmma.mma_async.sync.aligned.m64n" COLUMNS "k16.f32." TYPE "." TYPE " {" NAMES "}, {" LEFT \
               "}, " RIGHT ", more, 1, 1, 1;\n}\n"                                                         \
               : __VA_ARGS__                                                                               \
               : LINNET_LEFT, "l"(right), "r"(static_cast<int>(more)))
#define LINNET_GROUP_PRODUCT_8(TYPE) \
  LINNET_GROUP_PRODUCT(TYPE, "8", "%0, %1, %2, %3", "%4, %5, %6, %7", "%8", "%9", LINNET_SUMS(0))
#define LINNET_GROUP_PRODUCT_144(TYPE)                                                                      \
  LINNET_GROUP_PRODUCT(TYPE, "144", LINNET_NAMES_72, "%72, %73, %74, %75", "%76", "%77", LINNET_SUMS_16(0), \
                       LINNET_SUMS(16), LINNET_SUMS(17))
#define LINNET_GROUP_PRODUCT_192(TYPE)                                                                        \
  LINNET_GROUP_PRODUCT(TYPE, "192", LINNET_NAMES_96, "%96, %97, %98, %99", "%100", "%101", LINNET_SUMS_16(0), \
                       LINNET_SUMS_4(16), LINNET_SUMS_4(20))

/// The matrix descriptor of the PTX manual: address and steps in 16 bytes, and in the upmost bits how it is
/// swizzled.
__device__ __forceinline__ uint64_t describe(const void* b, BlockSteps steps) {
  return static_cast<uint64_t>((shared_address(b) & 0x3ffff) >> 4) |
         static_cast<uint64_t>(steps.depth >> 4) << 16 | static_cast<uint64_t>(steps.column >> 4) << 32;
}
__device__ __forceinline__ uint64_t describe(const void* b, SwizzledSteps steps) {
  return static_cast<uint64_t>((shared_address(b) & 0x3ffff) >> 4) |
         static_cast<uint64_t>(steps.column >> 4) << 16 | static_cast<uint64_t>(steps.depth >> 4) << 32 |
         uint64_t{1} << 62;
}

template <class T, int N, class Steps>
__device__ __forceinline__ void multiply_group(float (&c)[N][4], const unsigned (&a)[4], const void* b,
                                               Steps steps, bool more = true) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  const uint64_t right = describe(b, steps);
  static_assert(N == 24 || N == 18 || N == 1);
  constexpr bool is_bf16 = std::is_same_v<T, bf16>;
  if constexpr (N == 24 && is_bf16)
    LINNET_GROUP_PRODUCT_192("bf16");
  else if constexpr (N == 24)
    LINNET_GROUP_PRODUCT_192("f16");
  else if constexpr (N == 18 && is_bf16)
    LINNET_GROUP_PRODUCT_144("bf16");
  else if constexpr (N == 18)
    LINNET_GROUP_PRODUCT_144("f16");
  else if constexpr (is_bf16)
    LINNET_GROUP_PRODUCT_8("bf16");
  else
    LINNET_GROUP_PRODUCT_8("f16");
#endif
}

#undef LINNET_GROUP_PRODUCT_192
#undef LINNET_GROUP_PRODUCT
#undef LINNET_GROUP_PRODUCT_8
#undef LINNET_GROUP_PRODUCT_144
#undef LINNET_NAMES_96
#undef LINNET_NAMES_72
#undef LINNET_LEFT
#undef LINNET_SUMS_16
#undef LINNET_SUMS_4
#undef LINNET_SUMS

#endif

}  // namespace linnet::cuda
