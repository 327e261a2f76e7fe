// Random numbers that are PyTorch's, and seeds and permutations that are sound.
#include "core/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <set>

namespace linnet {
namespace {

TEST(Generator, IsTheMersenneTwister) {
  // The 10,000th output for the default seed, as the C++ standard demands of mt19937.
  Generator generator(5489);
  for (int i = 1; i < 10'000; ++i) generator.random32();
  EXPECT_EQ(generator.random32(), 4123659995u);
}

void expect_near(const Tensor& found, const std::vector<float>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found.values<float>()[i], expected[i], 6e-5) << i;
}

// The numbers below are what torch.manual_seed(seed) and torch.randn or torch.rand print.
TEST(Generator, FollowsTorchRandnOfFewerThan16) {
  expect_near(Generator(0).normal({2, 3}), {1.5410f, -0.2934f, -2.1788f, 0.5684f, -1.0845f, -1.3986f});
  expect_near(Generator(42).normal({6}), {0.3367f, 0.1288f, 0.2345f, 0.2303f, -1.1229f, -0.1863f});
}

TEST(Generator, FollowsTorchRandnOf16AndMore) {
  expect_near(Generator(0).normal({16}),
              {-1.1258f, -1.1524f, -0.2506f, -0.4339f, 0.8487f, 0.6920f, -0.3160f, -2.1152f});
}

TEST(Generator, FollowsTorchRand) {
  Generator generator(0);
  for (const float expected : {0.4963f, 0.7682f, 0.0885f, 0.1320f, 0.3074f})
    EXPECT_NEAR(generator.uniform(), expected, 6e-5);
}

TEST(Generator, GivesTheSameNumbersForTheSameSeed) {
  const Tensor a = Generator(3).normal({5, 7}), b = Generator(3).normal({5, 7}),
               c = Generator(4).normal({5, 7});
  EXPECT_TRUE(std::ranges::equal(a.values<float>(), b.values<float>()));
  EXPECT_FALSE(std::ranges::equal(a.values<float>(), c.values<float>()));
}

TEST(Generator, UniformNumbersLieInTheirInterval) {
  Generator generator(1);
  double sum = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double x = i % 2 ? generator.uniform() : generator.uniform_double();
    ASSERT_TRUE(x >= 0 && x < 1);
    sum += x;
  }
  EXPECT_NEAR(sum / 100'000, 0.5, 0.005);
}

TEST(Generator, NormalNumbersHaveTheirMomentsInBothOrders) {
  for (const int64_t size : {int64_t{15}, int64_t{16}, int64_t{1001}}) {
    Generator generator(2);
    double sum = 0, squares = 0;
    int64_t count = 0;
    while (count < 200'000) {
      const Tensor x = generator.normal({size});
      for (const float value : x.values<float>()) sum += value, squares += static_cast<double>(value) * value;
      count += size;
    }
    EXPECT_NEAR(sum / static_cast<double>(count), 0, 0.02) << size;
    EXPECT_NEAR(squares / static_cast<double>(count), 1, 0.02) << size;
  }
}

TEST(Generator, OfNothingIsNothing) { EXPECT_EQ(Generator(1).normal({0, 4}).numel(), 0); }

TEST(Mix, TellsAllPairsApart) {
  std::set<uint64_t> seen;
  for (uint64_t a = 0; a < 100; ++a)
    for (uint64_t b = 0; b < 100; ++b) seen.insert(mix(a, b));
  EXPECT_EQ(seen.size(), 10'000u);
}

TEST(Mix, TurnsHalfTheBitsWhenOneIsTurned) {
  double turned = 0;
  for (int bit = 0; bit < 64; ++bit) {
    turned += std::popcount(mix(7, 9) ^ mix(7 ^ (uint64_t{1} << bit), 9));
    turned += std::popcount(mix(7, 9) ^ mix(7, 9 ^ (uint64_t{1} << bit)));
  }
  EXPECT_NEAR(turned / 128, 32, 2);
}

TEST(Permutation, HoldsEveryNumberOnce) {
  for (const int64_t n : {0, 1, 2, 17, 1000}) {
    std::vector<int64_t> order = permutation(n, 5);
    std::ranges::sort(order);
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
    EXPECT_EQ(static_cast<int64_t>(order.size()), n);
  }
}

TEST(Permutation, DependsOnItsSeedAlone) {
  EXPECT_EQ(permutation(100, 1), permutation(100, 1));
  EXPECT_NE(permutation(100, 1), permutation(100, 2));
}

TEST(Permutation, FavoursNoOrder) {
  std::map<std::vector<int64_t>, int> counts;
  for (uint64_t seed = 0; seed < 6000; ++seed) ++counts[permutation(3, seed)];
  EXPECT_EQ(counts.size(), 6u);
  for (const auto& [order, count] : counts) EXPECT_NEAR(count, 1000, 150);
}

}  // namespace
}  // namespace linnet
