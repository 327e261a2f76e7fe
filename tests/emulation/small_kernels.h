// What the tests of the emulation run: small kernels in the language that it emulates.
#pragma once

#include <functional>

#include "core/dtype.h"
#include "cuda/emulation/emulation.h"
#include "cuda/group_products.h"

namespace linnet::cuda::test {

using Kernel = std::function<void()>;

constexpr unsigned pair_of_ones = 0x3f803f80;  // bf16
constexpr size_t shared_bytes = 4096;

inline char* shared_memory() {
  LINNET_DYNAMIC_SHARED(shared);
  return shared;
}
inline float* shared_floats() { return static_cast<float*>(static_cast<void*>(shared_memory())); }
inline unsigned& shared_pair(unsigned i) {
  return static_cast<unsigned*>(static_cast<void*>(shared_memory()))[i];
}

inline void run(const Kernel& kernel, unsigned threads = 128, unsigned blocks = 1) {
  emulation::run(dim3(blocks), dim3(threads), shared_bytes, kernel);
}

// The right tile, 16×8 values in 256 bytes, is written by the group's first half; a sum goes to `result`.
inline void multiply_shown(bool shows, bool meets, bool overwrites, float& result) {
  if (threadIdx.x < 64) shared_pair(threadIdx.x) = pair_of_ones;
  if (shows) show_to_group_products();
  if (meets) __syncthreads();
  float sums[1][4] = {};
  const unsigned left[4] = {pair_of_ones, pair_of_ones, pair_of_ones, pair_of_ones};
  begin_group_products();
  multiply_group<bf16>(sums, left, shared_memory(), BlockSteps{128, 0});
  commit_group_products();
  if (overwrites) {
    __syncthreads();
    if (threadIdx.x < 64) shared_pair(threadIdx.x) = 0;
    __syncthreads();
  }
  wait_for_group_products<0>();
  if (threadIdx.x == 0) result = sums[0][0];
}

}  // namespace linnet::cuda::test
