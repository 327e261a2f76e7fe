// Small kernels, right ones and faulty ones: what the emulation computes, and whether it finds what is wrong.
// Races are found where the thread sanitizer is.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <string>

#include <linnet/error.h>

#include "core/dtype.h"
#include "cuda/emulation/emulation.h"
#include "cuda/group_products.h"

namespace linnet::cuda {
namespace {

using Kernel = std::function<void()>;

constexpr unsigned pair_of_ones = 0x3f803f80;  // bf16
constexpr size_t shared_bytes = 4096;

char* shared_memory() {
  LINNET_DYNAMIC_SHARED(shared);
  return shared;
}
float* shared_floats() { return static_cast<float*>(static_cast<void*>(shared_memory())); }
unsigned& shared_pair(unsigned i) { return static_cast<unsigned*>(static_cast<void*>(shared_memory()))[i]; }

void run(const Kernel& kernel, unsigned threads = 128, unsigned blocks = 1) {
  emulation::run(dim3(blocks), dim3(threads), shared_bytes, kernel);
}

// In a process of its own, which the thread sanitizer ends with a status of its own if it has found anything.
void expect_race(bool is_one, const Kernel& kernel, unsigned threads = 128, unsigned blocks = 1) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto alone = [&] {
    run(kernel, threads, blocks);
    std::exit(0);
  };
  if (is_one)
    EXPECT_EXIT(alone(), testing::ExitedWithCode(66), "data race");
  else
    EXPECT_EXIT(alone(), testing::ExitedWithCode(0), "");
}

class EmulatedRaces : public testing::Test {
  void SetUp() override {
    if (!emulation::finds_races) GTEST_SKIP() << "races are found with the thread sanitizer";
  }
};

void pass_on(const Kernel& between) {
  float* const values = shared_floats();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  between();
  [[maybe_unused]] const volatile float other = values[(threadIdx.x + 1) % blockDim.x];
}

TEST_F(EmulatedRaces, ABarrierIsMissing) {
  expect_race(true, [] { pass_on([] {}); });
  expect_race(false, [] { pass_on([] { __syncthreads(); }); });
}

TEST_F(EmulatedRaces, AWarpOrdersItsOwnThreadsAlone) {
  expect_race(true, [] { pass_on([] { __syncwarp(); }); });
  expect_race(
      false, [] { pass_on([] { __syncwarp(); }); }, 32);
}

TEST_F(EmulatedRaces, AShuffleIsNoBarrier) {
  expect_race(
      true, [] { pass_on([] { __shfl_sync(all_lanes, 1, 0); }); }, 32);
}

TEST_F(EmulatedRaces, ABarrierForOthersIsNone) {
  const auto two_barriers = [](bool same) {
    pass_on([&] { meet(same ? 1 : 1 + static_cast<int>(threadIdx.x) / warp_size, same ? 64 : warp_size); });
  };
  expect_race(
      true, [=] { two_barriers(false); }, 64);
  expect_race(
      false, [=] { two_barriers(true); }, 64);
}

TEST_F(EmulatedRaces, WhoOnlyArrivesSeesNothing) {
  const auto from_first_to_second_warp = [](bool back) {
    const bool first = threadIdx.x < 32;
    float& value = shared_floats()[threadIdx.x % 32];
    if (first == !back) value = 1.0f;
    if (first)
      arrive(1, 64);
    else
      meet(1, 64);
    if (first == back) [[maybe_unused]]
      const volatile float seen = value;
  };
  expect_race(
      false, [=] { from_first_to_second_warp(false); }, 64);
  expect_race(
      true, [=] { from_first_to_second_warp(true); }, 64);
}

TEST_F(EmulatedRaces, BlocksAreNotOrdered) {
  static volatile float sum = 0;
  const auto add_up = [](unsigned block) {
    if (threadIdx.x == 0 && blockIdx.x <= block) sum = sum + 1;
  };
  expect_race(
      true, [=] { add_up(1); }, 32, 2);
  expect_race(
      false, [=] { add_up(0); }, 32, 2);
}

TEST_F(EmulatedRaces, SharedMemoryIsOfABlock) {
  expect_race(
      false,
      [] {
        __shared__ float one[32];
        one[threadIdx.x] = static_cast<float>(blockIdx.x);
        shared_floats()[threadIdx.x] = one[threadIdx.x];
      },
      32, 9);
}

// Thread 0 copies what all read.
void copy(bool waits, bool meets) {
  static const std::array<float, 4> values = {1, 2, 3, 4};
  if (threadIdx.x == 0) {
    copy_16(shared_floats(), values.data());
    commit_copies();
    if (waits) wait_for_copies<0>();
  }
  if (meets) __syncthreads();
  [[maybe_unused]] const volatile float seen = shared_floats()[threadIdx.x % 4];
  if (!waits) wait_for_copies<0>();
}

TEST_F(EmulatedRaces, ACopyIsWaitedForAndThenABarrierPassed) {
  expect_race(false, [] { copy(true, true); });
  expect_race(true, [] { copy(true, false); });
  expect_race(true, [] { copy(false, true); });
}

// The right tile, 16×8 values in 256 bytes, is written by the group's first half; a sum goes to `result`.
void multiply_shown(bool shows, bool meets, bool overwrites, float& result) {
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

TEST_F(EmulatedRaces, AProductSeesWhatIsShown) {
  static float result = 0;
  expect_race(false, [] { multiply_shown(true, true, false, result); });
  expect_race(true, [] { multiply_shown(false, true, false, result); });
  expect_race(true, [] { multiply_shown(true, false, false, result); });
  expect_race(true, [] { multiply_shown(true, true, true, result); });
}

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
}  // namespace linnet::cuda
