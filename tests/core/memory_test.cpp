// The allocator's bookkeeping: in use, peak, reuse and release.
#include "core/memory.h"

#include <gtest/gtest.h>

#include <map>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"

// The address sanitizer aborts on requests that no machine can meet unless told to answer as malloc does.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

namespace linnet {
namespace {

constexpr size_t mib = 1 << 20;

class Memory : public testing::Test {
 protected:
  void SetUp() override {
    release_cached_memory();
    reset_peak_memory();
    before_ = memory_stats();
  }
  size_t in_use() const { return memory_stats().in_use - before_.in_use; }
  size_t peak() const { return memory_stats().peak - before_.in_use; }

  MemoryStats before_;
};

TEST_F(Memory, CountsWhatIsInUse) {
  auto block = allocate(mib);
  EXPECT_EQ(in_use(), mib);
  block.reset();
  EXPECT_EQ(in_use(), 0u);
}

TEST_F(Memory, WastesAtMostAQuarterOfALargeRequest) {
  for (size_t bytes = 257; bytes < 4 * mib; bytes = bytes * 9 / 8 + 1) {
    const auto block = allocate(bytes);
    EXPECT_GE(in_use(), bytes);
    EXPECT_LE(in_use(), bytes + bytes / 4 + 64);
  }
}

TEST_F(Memory, AlwaysHasRoomForWhatWasAsked) {
  for (size_t bytes = 0; bytes < 2000; ++bytes) {
    const auto block = allocate(bytes);
    std::fill_n(static_cast<char*>(block.get()), bytes, 'x');  // the address sanitizer watches
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block.get()) % 64, 0u);
  }
}

TEST_F(Memory, RemembersThePeak) {
  { const auto a = allocate(2 * mib), b = allocate(4 * mib); }
  const auto c = allocate(mib);
  EXPECT_EQ(peak(), 6 * mib);
  reset_peak_memory();
  EXPECT_EQ(peak(), mib);
}

TEST_F(Memory, HandsABlockOutAgain) {
  auto block = allocate(mib);
  const void* const address = block.get();
  block.reset();
  const size_t cached = memory_stats().cached;
  EXPECT_GE(cached, mib);
  block = allocate(mib);
  EXPECT_EQ(block.get(), address);
  EXPECT_EQ(memory_stats().cached, cached - mib);
}

TEST_F(Memory, GivesCachedBlocksBack) {
  allocate(mib).reset();
  allocate(3 * mib).reset();
  release_cached_memory();
  EXPECT_EQ(memory_stats().cached, 0u);
}

TEST_F(Memory, KeepsNoMoreThanWasNeededAtOnceAndSomeSlack) {
  // One after the other, so the peak is a single block: the cache must not keep them all.
  for (size_t i = 1; i <= 64; ++i) allocate((16 + i) * mib).reset();
  EXPECT_LE(memory_stats().cached, peak() + peak() / 4 + 64 * mib);
}

TEST_F(Memory, TheSameStepAgainNeedsNothingFromTheSystem) {
  // Many sizes, of which few are alive at once: what one leaves, the next must be able to use.
  const auto step = [] {
    std::vector<std::shared_ptr<void>> alive;
    for (size_t i = 0; i < 200; ++i) {
      alive.push_back(allocate((1 + i * 7 % 23) * mib));
      if (alive.size() > 12) alive.erase(alive.begin() + static_cast<ptrdiff_t>(i % 12));
    }
  };
  step();
  const size_t held = memory_stats().cached;
  EXPECT_LE(held, peak() + peak() / 4 + 64 * mib);
  step();
  EXPECT_EQ(memory_stats().cached, held);
}

TEST_F(Memory, BlocksThatLieTogetherAreJoined) {
  std::vector<std::shared_ptr<void>> quarters;
  for (int i = 0; i < 4; ++i) quarters.push_back(allocate(16 * mib));
  const size_t held = memory_stats().cached;
  for (const size_t i : {size_t{1}, size_t{3}, size_t{0}, size_t{2}}) quarters[i].reset();
  const auto whole = allocate(64 * mib);
  EXPECT_EQ(memory_stats().cached, held);
}

TEST_F(Memory, BlocksNeverOverlap) {
  std::map<char*, std::pair<std::shared_ptr<void>, size_t>> alive;
  for (size_t i = 0; i < 3000; ++i) {
    const size_t bytes = i * 7919 % 5000 * 1001 + 1;
    auto block = allocate(bytes);
    auto* const at = static_cast<char*>(block.get());
    const auto after = alive.lower_bound(at);
    if (after != alive.end()) {
      EXPECT_LE(at + bytes, after->first);
    }
    if (after != alive.begin()) {
      EXPECT_LE(std::prev(after)->first + std::prev(after)->second.second, at);
    }
    at[0] = at[bytes - 1] = 'x';
    alive.emplace(at, std::pair(std::move(block), bytes));
    if (alive.size() > 30) alive.erase(std::next(alive.begin(), static_cast<ptrdiff_t>(i * 31 % alive.size())));
  }
}

TEST_F(Memory, ViewsCountOnce) {
  const Tensor x = Tensor::empty({512, 512});
  const Tensor view = x.rows(0, 10), shaped = x.reshape({512 * 512});
  EXPECT_EQ(in_use(), mib);
}

TEST_F(Memory, SaysWhenThereIsNoneLeft) {
  EXPECT_THROW(allocate(size_t{1} << 60), Error);
  EXPECT_EQ(in_use(), 0u);
}

TEST_F(Memory, SaysSoForRequestsThatRoundUpBeyondAllAddresses) {
  EXPECT_THROW(allocate(SIZE_MAX), Error);
  EXPECT_THROW(allocate(SIZE_MAX - 100), Error);
}

TEST_F(Memory, MayBeUsedByManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      std::vector<std::shared_ptr<void>> kept;
      for (size_t i = 0; i < 2000; ++i) {
        kept.push_back(allocate(100 + i % 7 * 1000));
        if (kept.size() > 20) kept.erase(kept.begin(), kept.begin() + 10);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(in_use(), 0u);
}

}  // namespace
}  // namespace linnet
