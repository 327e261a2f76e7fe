// What kernels compute on the emulated GPU, and what it finds wrong with them.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>

#include <linnet/error.h>

#include "core/poison.h"
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

void expect_refused(const std::string& sentence, const Kernel& kernel, unsigned threads = 32) {
  try {
    run(kernel, threads);
    ADD_FAILURE() << "nothing was thrown, not \"" << sentence << '"';
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), sentence);
  }
}

TEST(Emulation, AKernelEndsAfterItsCopies) {
  alignas(16) const std::array<float, 4> values = {1, 2, 3, 4};
  expect_refused("a thread of a kernel ended before its copies or products",
                 [&] { copy_16(shared_floats() + 4 * threadIdx.x, values.data()); });
}

TEST(Emulation, ABarrierThatNeverOpensIsSaid) {
  expect_refused("threads of a kernel wait for one another: 32 of 64 have come to a barrier",
                 [] { meet(1, 64); });
  expect_refused(
      "threads of a kernel wait for one another: 32 of 64 have come to a barrier",
      [] {
        if (threadIdx.x < 32)
          meet(1, 64);
        else
          meet(2, 64);
      },
      64);
}

TEST(Emulation, AThreadThatFailsEndsTheKernel) {
  expect_refused(
      "this one",
      [] {
        if (threadIdx.x == 5) throw Error("this one");
        meet(1, 64);
      },
      64);
}

TEST(Emulation, BarriersAreOfWholeWarpsWhichAgree) {
  expect_refused("there is no barrier 0 for 32 threads", [] { meet(0, 32); });
  expect_refused("there is no barrier 1 for 31 threads", [] { meet(1, 31); });
  expect_refused(
      "barrier 1 is for 64 threads and for 96", [] { meet(1, threadIdx.x < 32 ? 64 : 96); }, 64);
}

TEST(Emulation, PacksLieAtMultiplesOfTheirSize) {
  alignas(16) const std::array<float, 8> values{};
  expect_refused("a kernel has an address that is no multiple of 16",
                 [&] { copy_16(shared_floats(), values.data() + 1); });
  expect_refused("a kernel has an address that is no multiple of 1024", [] {
    float sums[1][4] = {};
    const unsigned left[4] = {};
    multiply_group<bf16>(sums, left, shared_memory() + 512, SwizzledSteps{1024, 0});
  });
}

TEST(Emulation, TheLeftTileOfAProductStays) {
  expect_refused("a product's left tile was changed before it was done", [] {
    float sums[1][4] = {};
    unsigned left[4] = {};
    multiply_group<bf16>(sums, left, shared_memory(), BlockSteps{128, 0});
    commit_group_products();
    left[2] = 1;
    wait_for_group_products<0>();
  });
}

#ifdef LINNET_ADDRESS_SANITIZER
TEST(Emulation, SharedMemoryIsWatchedOnBothSides) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  run([] { shared_memory()[0] = shared_memory()[shared_bytes - 1] = 1; }, 1);
  for (const ptrdiff_t at : {ptrdiff_t{-1}, ptrdiff_t{shared_bytes}, ptrdiff_t{shared_bytes + 512}})
    EXPECT_DEATH(run([=] { *static_cast<volatile char*>(shared_memory() + at) = 1; }, 1), "AddressSanitizer");
}
#endif

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
