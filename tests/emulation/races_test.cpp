// Kernels with and without a race, and whether the thread sanitizer says so.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>

#include "emulation/small_kernels.h"

namespace linnet::cuda::test {
namespace {

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

void pass_on(const Kernel& between) {
  float* const values = shared_floats();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  between();
  [[maybe_unused]] const volatile float other = values[(threadIdx.x + 1) % blockDim.x];
}

TEST(EmulatedRaces, ABarrierIsMissing) {
  expect_race(true, [] { pass_on([] {}); });
  expect_race(false, [] { pass_on([] { __syncthreads(); }); });
}

TEST(EmulatedRaces, AWarpOrdersItsOwnThreadsAlone) {
  expect_race(true, [] { pass_on([] { __syncwarp(); }); });
  expect_race(
      false, [] { pass_on([] { __syncwarp(); }); }, 32);
}

TEST(EmulatedRaces, AShuffleIsNoBarrier) {
  expect_race(
      true, [] { pass_on([] { __shfl_sync(all_lanes, 1, 0); }); }, 32);
}

TEST(EmulatedRaces, ABarrierForOthersIsNone) {
  const auto two_barriers = [](bool same) {
    pass_on([&] { meet(same ? 1 : 1 + static_cast<int>(threadIdx.x) / warp_size, same ? 64 : warp_size); });
  };
  expect_race(
      true, [=] { two_barriers(false); }, 64);
  expect_race(
      false, [=] { two_barriers(true); }, 64);
}

TEST(EmulatedRaces, WhoOnlyArrivesSeesNothing) {
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

TEST(EmulatedRaces, BlocksAreNotOrdered) {
  static volatile float sum = 0;
  const auto add_up = [](unsigned block) {
    if (threadIdx.x == 0 && blockIdx.x <= block) sum = sum + 1;
  };
  expect_race(
      true, [=] { add_up(1); }, 32, 2);
  expect_race(
      false, [=] { add_up(0); }, 32, 2);
}

TEST(EmulatedRaces, NorAreBlocksAtAnyDistance) {
  static volatile float sum = 0;
  for (const unsigned last : {2u, 4u, 8u, 16u, 64u})
    expect_race(
        true,
        [=] {
          if (threadIdx.x == 0 && (blockIdx.x == 0 || blockIdx.x == last)) sum = sum + 1;
        },
        32, last + 1);
}

TEST(EmulatedRaces, SharedMemoryIsOfABlock) {
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
  alignas(16) static const std::array<float, 4> values = {1, 2, 3, 4};
  if (threadIdx.x == 0) {
    copy_16(shared_floats(), values.data());
    commit_copies();
    if (waits) wait_for_copies<0>();
  }
  if (meets) __syncthreads();
  [[maybe_unused]] const volatile float seen = shared_floats()[threadIdx.x % 4];
  if (!waits) wait_for_copies<0>();
}

TEST(EmulatedRaces, ACopyIsWaitedForAndThenABarrierPassed) {
  expect_race(false, [] { copy(true, true); });
  expect_race(true, [] { copy(true, false); });
  expect_race(true, [] { copy(false, true); });
}

TEST(EmulatedRaces, AProductSeesWhatIsShown) {
  static float result = 0;
  expect_race(false, [] { multiply_shown(true, true, false, result); });
  expect_race(true, [] { multiply_shown(false, true, false, result); });
  expect_race(true, [] { multiply_shown(true, false, false, result); });
  expect_race(true, [] { multiply_shown(true, true, true, result); });
}

// Two products, each with a tile of its own, of which the second is written over while it may still be read.
void write_over_the_second(bool waits) {
  const auto fill = [](unsigned tile, unsigned pair) {
    if (threadIdx.x < 64) shared_pair(64 * tile + threadIdx.x) = pair;
    show_to_group_products();
    __syncthreads();
  };
  fill(0, pair_of_ones);
  fill(1, pair_of_ones);
  float sums[2][1][4] = {};
  const unsigned left[4] = {pair_of_ones, pair_of_ones, pair_of_ones, pair_of_ones};
  begin_group_products();
  for (int tile = 0; tile < 2; ++tile) {
    multiply_group<bf16>(sums[tile], left, shared_memory() + 256 * tile, BlockSteps{128, 0});
    commit_group_products();
  }
  if (waits)
    wait_for_group_products<0>();
  else
    wait_for_group_products<1>();
  __syncthreads();
  fill(1, 0);
  wait_for_group_products<0>();
}

TEST(EmulatedRaces, WhatAProductStillReadsIsNotWrittenOver) {
  expect_race(true, [] { write_over_the_second(false); });
  expect_race(false, [] { write_over_the_second(true); });
}

TEST(EmulatedRaces, WaitingForProductsOrdersNothingElse) {
  const auto read_of_others = [](bool meets) {
    static float result = 0;
    float* const values = shared_floats() + 256;
    values[threadIdx.x] = 1.0f;
    show_to_group_products();
    multiply_shown(true, true, false, result);
    if (threadIdx.x % 32 == 1) values[threadIdx.x] = 2.0f;
    show_to_group_products();
    const unsigned left[4] = {};
    float sums[1][4] = {};
    begin_group_products();
    multiply_group<bf16>(sums, left, shared_memory(), BlockSteps{128, 0});
    commit_group_products();
    wait_for_group_products<0>();
    if (meets) __syncthreads();
    [[maybe_unused]] const volatile float seen = values[threadIdx.x ^ 1];
  };
  expect_race(true, [=] { read_of_others(false); });
  expect_race(false, [=] { read_of_others(true); });
}

}  // namespace
}  // namespace linnet::cuda::test
