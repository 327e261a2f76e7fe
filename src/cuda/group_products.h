// Products of tiles by a group of four warps, as single instructions that run beside the group's other work:
// what Hopper has (compute capability 9.0 alone: wgmma is in no other architecture). The left tile is in
// registers, each warp's 16 rows as the fragments of cuda/tensor_cores.h; the right one in shared memory. Or
// both are in shared memory, and the product is that of their rows.
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
/// Or in blocks of 8×32, with rows of 64 bytes, where pack i of row r stands in the place of i ^ r/2: for what
/// is no multiple of 64 wide. So they begin at multiples of 512 bytes. Tiles whose rows are multiplied by rows
/// lie so, too: `depth` bytes from 8 rows to the next 8, `column` from 32 of the depth to the next 32.
struct NarrowSteps {
  int depth, column;
};
__host__ __device__ constexpr int narrowly_swizzled(int row, int pack) {
  return row % 8 * 64 + (pack ^ row % 8 / 2) * 16;
}

/// Where the pack of columns from n on of row k begins, n a multiple of 8.
__host__ __device__ constexpr int place_of(BlockSteps steps, int k, int n) {
  return n / 8 * steps.column + k / 8 * steps.depth + k % 8 * 16;
}
__host__ __device__ constexpr int place_of(SwizzledSteps steps, int k, int n) {
  return n / 64 * steps.column + k / 8 * steps.depth + swizzled(k, n % 64 / 8);
}
__host__ __device__ constexpr int place_of(NarrowSteps steps, int k, int n) {
  return n / 32 * steps.column + k / 8 * steps.depth + narrowly_swizzled(k, n % 32 / 8);
}
/// Bytes from which on a tile may begin that lies so.
constexpr int alignment_of(BlockSteps) { return 16; }
constexpr int alignment_of(SwizzledSteps) { return 1024; }
constexpr int alignment_of(NarrowSteps) { return 512; }

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
    emulation::check_aligned(b_, alignment_of(steps));
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

// A product of rows as one of its lanes does it.
template <class T, int N>
struct LaneProductOfRows {
  float (&c)[N][4];
  const char *a, *b;
  NarrowSteps steps;
  bool more;
  int row = static_cast<int>(threadIdx.x) / warp_size % 4 * 16 + emulation::lane() / 4,
      column = 2 * (emulation::lane() % 4);

  // Where two neighbours stand. What is swizzled is the address, as the depth may begin within a block's rows.
  const char* pair(const char* tile, int tile_row, int k) const {
    const auto plain = reinterpret_cast<uintptr_t>(tile) +
                       static_cast<uintptr_t>(tile_row / 8 * steps.depth + tile_row % 8 * 64 + 2 * k);
    return reinterpret_cast<const char*>(plain ^ (plain >> 7 & 3) << 4);
  }
  static float2 values(const char* at) {
    unsigned bits;
    std::memcpy(&bits, at, sizeof bits);
    return unpack<T>(bits);
  }
  void look(bool again) const {
    for (int k = 0; emulation::finds_races && k < 16; k += 2) {
      for (int half = 0; half < 2; ++half) emulation::product_reads(pair(a, row + 8 * half, k), again);
      for (int n = emulation::lane(); n < 8 * N; n += warp_size) emulation::product_reads(pair(b, n, k), again);
    }
  }
  void operator()() const {
    look(true);
    for (int n = 0; n < N; ++n)
      for (int i = 0; i < 4; ++i) {
        if (!more) c[n][i] = 0.0f;
        for (int k = 0; k < 16; k += 2) {
          const float2 left = values(pair(a, row + i / 2 * 8, k));
          const float2 right = values(pair(b, 8 * n + column + i % 2, k));
          c[n][i] += left.x * right.x + left.y * right.y;
        }
      }
  }
};

/// c (64×8·N, f32) += a·bᵀ of rows of T: 16 of the depth of a (64 rows) and of b (8·N rows), both in shared
/// memory, from the first or the seventeenth column of a block on.
template <class T, int N>
void multiply_rows(float (&c)[N][4], const void* a, const void* b, NarrowSteps steps, bool more = true) {
  const LaneProductOfRows<T, N> product{c, static_cast<const char*>(a), static_cast<const char*>(b), steps,
                                        more};
  for (const void* tile : {a, b})
    emulation::check_aligned(tile, reinterpret_cast<uintptr_t>(tile) % 512 == 32 ? 32 : alignment_of(steps));
  emulation::begin_to_read();
  product.look(false);
  emulation::begin_product(product);
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
#define LINNET_NAMES_32                                          \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "           \
  "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define LINNET_NAMES_48                                          \
  LINNET_NAMES_32                                                \
  ", "                                                           \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, " \
  "%44, %45, %46, %47"
#define LINNET_NAMES_64                                          \
  LINNET_NAMES_48                                                \
  ", "                                                           \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, " \
  "%60, %61, %62, %63"
#define LINNET_NAMES_72 LINNET_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
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
#define LINNET_GROUP_PRODUCT_96(TYPE)                                                                     \
  LINNET_GROUP_PRODUCT(TYPE, "96", LINNET_NAMES_48, "%48, %49, %50, %51", "%52", "%53", LINNET_SUMS_4(0), \
                       LINNET_SUMS_4(4), LINNET_SUMS_4(8))
#define LINNET_GROUP_PRODUCT_128(TYPE) \
  LINNET_GROUP_PRODUCT(TYPE, "128", LINNET_NAMES_64, "%64, %65, %66, %67", "%68", "%69", LINNET_SUMS_16(0))
#define LINNET_GROUP_PRODUCT_144(TYPE)                                                                      \
  LINNET_GROUP_PRODUCT(TYPE, "144", LINNET_NAMES_72, "%72, %73, %74, %75", "%76", "%77", LINNET_SUMS_16(0), \
                       LINNET_SUMS(16), LINNET_SUMS(17))
#define LINNET_GROUP_PRODUCT_192(TYPE)                                                                        \
  LINNET_GROUP_PRODUCT(TYPE, "192", LINNET_NAMES_96, "%96, %97, %98, %99", "%100", "%101", LINNET_SUMS_16(0), \
                       LINNET_SUMS_4(16), LINNET_SUMS_4(20))

// The same of two tiles in shared memory, neither of them transposed.
#define LINNET_ROWS_PRODUCT_64(TYPE)                                                   \
  asm volatile(                                                                        \
      "{\n.reg .pred more;\nsetp.ne.b32 more, %34, 0;\n"                               \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" LINNET_NAMES_32 \
      "}, %32, %33, more, 1, 1, 0, 0;\n}\n"                                            \
      : LINNET_SUMS_4(0), LINNET_SUMS_4(4)                                             \
      : "l"(left), "l"(right), "r"(static_cast<int>(more)))

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
__device__ __forceinline__ uint64_t describe(const void* b, NarrowSteps steps) {
  return static_cast<uint64_t>((shared_address(b) & 0x3ffff) >> 4) |
         static_cast<uint64_t>(steps.column >> 4) << 16 | static_cast<uint64_t>(steps.depth >> 4) << 32 |
         uint64_t{2} << 62;
}

template <class T, int N, class Steps>
__device__ __forceinline__ void multiply_group(float (&c)[N][4], const unsigned (&a)[4], const void* b,
                                               Steps steps, bool more = true) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  const uint64_t right = describe(b, steps);
  static_assert(N == 24 || N == 18 || N == 16 || N == 12 || N == 1);
  constexpr bool is_bf16 = std::is_same_v<T, bf16>;
  if constexpr (N == 24 && is_bf16)
    LINNET_GROUP_PRODUCT_192("bf16");
  else if constexpr (N == 24)
    LINNET_GROUP_PRODUCT_192("f16");
  else if constexpr (N == 18 && is_bf16)
    LINNET_GROUP_PRODUCT_144("bf16");
  else if constexpr (N == 18)
    LINNET_GROUP_PRODUCT_144("f16");
  else if constexpr (N == 16 && is_bf16)
    LINNET_GROUP_PRODUCT_128("bf16");
  else if constexpr (N == 16)
    LINNET_GROUP_PRODUCT_128("f16");
  else if constexpr (N == 12 && is_bf16)
    LINNET_GROUP_PRODUCT_96("bf16");
  else if constexpr (N == 12)
    LINNET_GROUP_PRODUCT_96("f16");
  else if constexpr (is_bf16)
    LINNET_GROUP_PRODUCT_8("bf16");
  else
    LINNET_GROUP_PRODUCT_8("f16");
#endif
}

template <class T, int N>
__device__ __forceinline__ void multiply_rows(float (&c)[N][4], const void* a, const void* b, NarrowSteps steps,
                                              bool more = true) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  static_assert(N == 8);
  const NarrowSteps within{steps.depth, 16};  // 16 of the depth lie within a block: no steps to more of them
  const uint64_t left = describe(a, within), right = describe(b, within);
  if constexpr (std::is_same_v<T, bf16>)
    LINNET_ROWS_PRODUCT_64("bf16");
  else
    LINNET_ROWS_PRODUCT_64("f16");
#endif
}

#undef LINNET_ROWS_PRODUCT_64
#undef LINNET_GROUP_PRODUCT_192
#undef LINNET_GROUP_PRODUCT
#undef LINNET_GROUP_PRODUCT_8
#undef LINNET_GROUP_PRODUCT_96
#undef LINNET_GROUP_PRODUCT_128
#undef LINNET_GROUP_PRODUCT_144
#undef LINNET_NAMES_96
#undef LINNET_NAMES_72
#undef LINNET_NAMES_64
#undef LINNET_NAMES_48
#undef LINNET_NAMES_32
#undef LINNET_LEFT
#undef LINNET_SUMS_16
#undef LINNET_SUMS_4
#undef LINNET_SUMS

#endif

}  // namespace linnet::cuda
