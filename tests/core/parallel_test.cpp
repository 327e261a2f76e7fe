// Parallel loops visit everything once, whatever the numbers, and hand exceptions on.
#include "core/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "core/error.h"

namespace linnet {
namespace {

class Parallel : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    before_ = threads();
    set_threads(GetParam());
  }
  void TearDown() override { set_threads(before_); }

 private:
  int before_ = 1;
};

TEST_P(Parallel, VisitsEveryIndexOnce) {
  for (const int64_t n : {0, 1, 2, 7, 100, 1001}) {
    for (const int64_t grain : {0, 1, 3, 1000, 5000}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
      parallel_for(n, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
      });
      for (const auto& count : visits) EXPECT_EQ(count, 1) << n << ' ' << grain;
    }
  }
}

TEST_P(Parallel, DoesNothingForNegativeCounts) {
  parallel_for(-3, 1, [](int64_t, int64_t) { FAIL(); });
}

TEST_P(Parallel, HandsAnExceptionOn) {
  for (const int64_t culprit : {0, 50, 99}) {
    try {
      parallel_for(100, 1, [&](int64_t begin, int64_t end) {
        if (begin <= culprit && culprit < end) fail("index {} failed", culprit);
      });
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.what(), fmt::format("index {} failed", culprit));
    }
  }
}

TEST_P(Parallel, HandsOneOfManyExceptionsOn) {
  EXPECT_THROW(parallel_for(100, 1, [](int64_t, int64_t) { fail("all fail"); }), Error);
}

TEST_P(Parallel, MayBeNested) {
  std::atomic<int> count = 0;
  parallel_for(8, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      parallel_for(10, 1, [&](int64_t b, int64_t e) { count += static_cast<int>(e - b); });
  });
  EXPECT_EQ(count, 80);
}

INSTANTIATE_TEST_SUITE_P(Threads, Parallel, testing::Values(1, 2, 5));

}  // namespace
}  // namespace linnet
