// What kernels compute on the emulated GPU, and what it finds wrong with them.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include <linnet/error.h>

#include "emulation/small_kernels.h"

namespace linnet::cuda::test {
namespace {

TEST(Emulation, AProductIsOfWhatIsThereWhenItIsWaitedFor) {
  float result = 0;
  run([&] { multiply_shown(true, true, false, result); });
  EXPECT_EQ(result, 16.0f);
  if (emulation::finds_races) return;
  run([&] { multiply_shown(true, true, true, result); });
  EXPECT_EQ(result, 0.0f);
}

TEST(Emulation, ACopyIsNotThereBeforeItIsWaitedFor) {
  alignas(16) const std::array<float, 4> values = {1, 2, 3, 4};
  float early = 0, late = 0;
  run(
      [&] {
        copy_16(shared_floats(), values.data());
        commit_copies();
        copy_16(shared_floats() + 4, values.data(), false);
        commit_copies();
        wait_for_copies<1>();
        late = shared_floats()[3];
        early = shared_floats()[4];
        wait_for_copies<0>();
        late += shared_floats()[4];
      },
      1);
  EXPECT_EQ(late, 4.0f);
  EXPECT_GT(early, 1e38f);
}

TEST(Emulation, AKernelEndsAfterItsCopies) {
  alignas(16) const std::array<float, 4> values = {1, 2, 3, 4};
  try {
    run([&] { copy_16(shared_floats() + 4 * threadIdx.x, values.data()); }, 32);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "a thread of a kernel ended before its copies or products");
  }
}

TEST(Emulation, EveryThreadOfEveryBlockRunsOnce) {
  std::array<int, 3 * 2 * 40> seen{};
  emulation::run(dim3(3, 2), dim3(8, 5), 0, [&] {
    const unsigned block = blockIdx.y * gridDim.x + blockIdx.x, thread = threadIdx.y * blockDim.x + threadIdx.x;
    ++seen[block * 40 + thread];
  });
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<long>(seen.size()));
}

}  // namespace
}  // namespace linnet::cuda::test
