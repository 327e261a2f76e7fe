// CUDA's language on a CPU, as much of it as Linnet's kernels use: each thread of a block is a fiber, and a
// barrier switches to the next one. Slow, and meant to be: it lets every kernel be tested, and watched by the
// sanitizers of addresses and of threads, where there is no GPU. What runs beside its thread is done as late as
// it may be, so that no wait for it can be missing. Kernels see all this through cuda/runtime.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __restrict__ __restrict
// A thread of the system runs one block at a time, so a block's shared memory is that thread's.
#define __shared__ static thread_local
#define LINNET_DYNAMIC_SHARED(name) char* const name = ::linnet::cuda::emulation::dynamic_shared()

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace linnet::cuda::emulation {

#ifdef LINNET_FIND_RACES  // with the thread sanitizer, to which each thread of a block is one of its own
constexpr bool finds_races = true;
#else
constexpr bool finds_races = false;
#endif

struct Place {
  dim3 thread, block;
};
extern thread_local Place here;
extern thread_local dim3 block_size, grid_size;

char* dynamic_shared();
void sync_block();
/// At barrier `name` of the block, which opens when `threads` of its threads have come to it; if it waits for
/// that.
void come_to_barrier(int name, int threads, bool waits);
void sync_warp();
int lane();
/// What `from` (a lane of this warp) passes in, of at most 16 bytes; all lanes call it together.
void exchange(const void* own, size_t bytes, int from, void* result);
/// Where that lane's last exchanged value lies, until the next one.
const void* exchanged(int from);
void publish(const void* own, size_t bytes);

/// Throws Error unless an address is such a multiple.
void check_aligned(const void* at, size_t bytes);

/// Copies that run beside the thread: in groups, done when so many later ones at most may still be under way.
void begin_copy(std::function<void()> copy);
void commit_copies();
void wait_for_copies(int most);
/// Products that do. What they read, 4 bytes at a time, must have been shown to them when they begin, and be
/// the same `again` when they are done.
void begin_product(std::function<void()> product);
void commit_products();
void wait_for_products(int most);
void show_to_products();
void begin_to_read();
void product_reads(const void* at, bool again);

/// Runs body once for each thread of each block.
void run(const dim3& grid, const dim3& block, size_t shared, const std::function<void()>& body);
/// Onto the stream: done at once, or, while a recording is made, by each of its replays.
void put(std::function<void()> work);

}  // namespace linnet::cuda::emulation

#define threadIdx (::linnet::cuda::emulation::here.thread)
#define blockIdx (::linnet::cuda::emulation::here.block)
#define blockDim (::linnet::cuda::emulation::block_size)
#define gridDim (::linnet::cuda::emulation::grid_size)

inline void __syncthreads() { linnet::cuda::emulation::sync_block(); }
inline void __syncwarp(unsigned = ~0u) { linnet::cuda::emulation::sync_warp(); }

template <class T>
T __shfl_sync(unsigned, T value, int from, int width = 32) {
  const int lane = linnet::cuda::emulation::lane();
  T result;
  linnet::cuda::emulation::exchange(&value, sizeof value, lane / width * width + (from & (width - 1)), &result);
  return result;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return __shfl_sync(mask, value, linnet::cuda::emulation::lane() ^ bits);
}
template <class T>
T __ldg(const T* at) {
  return *at;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }

struct alignas(8) float2 {
  float x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::max;
using std::min;
