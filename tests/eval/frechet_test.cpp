// The Fréchet distance against closed forms and NumPy, and statistics gathered in any way.
#include "eval/frechet.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "io/safetensors.h"

namespace linnet {
namespace {

Tensor random(int64_t n, int64_t d, uint64_t seed) { return Generator(seed).normal({n, d}); }

FeatureStatistics of(const Tensor& features) {
  FeatureStatistics statistics(features.size(1));
  statistics.add(features);
  return statistics;
}

// A diagonal covariance with these variances.
FeatureStatistics diagonal(const std::vector<double>& mean, const std::vector<double>& variances) {
  const size_t d = mean.size();
  std::vector<double> covariance(d * d);
  for (size_t i = 0; i < d; ++i) covariance[i * d + i] = variances[i];
  return {100, mean, covariance};
}

void expect_same(const FeatureStatistics& a, const FeatureStatistics& b) {
  ASSERT_EQ(a.count(), b.count());
  const auto one = a.covariance(), other = b.covariance();
  for (size_t i = 0; i < a.mean().size(); ++i) EXPECT_NEAR(a.mean()[i], b.mean()[i], 1e-12);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], other[i], 1e-12);
}

TEST(FeatureStatistics, AreMeanAndUnbiasedCovariance) {
  const auto statistics = of(Tensor::from<float>(std::vector<float>{1, 10, 2, 20, 6, 0}).reshape({3, 2}));
  EXPECT_EQ(statistics.count(), 3);
  EXPECT_DOUBLE_EQ(statistics.mean()[0], 3);
  EXPECT_DOUBLE_EQ(statistics.mean()[1], 10);
  const auto covariance = statistics.covariance();
  EXPECT_DOUBLE_EQ(covariance[0], 7);
  EXPECT_DOUBLE_EQ(covariance[1], -20);
  EXPECT_DOUBLE_EQ(covariance[2], -20);
  EXPECT_DOUBLE_EQ(covariance[3], 100);
}

TEST(FeatureStatistics, DoNotDependOnHowTheyAreGathered) {
  const Tensor features = random(40, 6, 1);
  FeatureStatistics parts(6), first(6), second(6), empty(6);
  for (int64_t i = 0; i < 40; i += 8) parts.add(features.rows(i, i + 8));
  first.add(features.rows(0, 1));
  second.add(features.rows(1, 40));
  first.merge(second);
  first.merge(empty);
  empty.merge(first);
  expect_same(parts, of(features));
  expect_same(first, of(features));
  expect_same(empty, of(features));
}

TEST(FeatureStatistics, AreExactFarFromTheOrigin) {
  // Sums of squares of f32 numbers about 2^20 would leave nothing of a variance of one.
  FeatureStatistics statistics(1);
  for (int i = 0; i < 1000; ++i) {
    const float at = 1048576.0f;
    statistics.add(Tensor::from<float>({at - 1, at + 1}).reshape({2, 1}));
  }
  EXPECT_NEAR(statistics.covariance()[0], 2000.0 / 1999.0, 1e-9);
}

TEST(FeatureStatistics, ComeBackFromWhatTheyGave) {
  const auto statistics = of(random(20, 3, 2));
  expect_same(FeatureStatistics(20, statistics.mean(), statistics.covariance()), statistics);
}

// Pictures whose sizes differ come one by one, others in batches.
TEST(FeatureStatistics, GatheredAreTheSameBytesHoweverTheSetWasCut) {
  const Tensor features = random(700, 5, 8);
  const auto cut = [&](int64_t size) {
    FeatureStatistics statistics(5);
    FeatureGatherer gatherer(statistics);
    for (int64_t i = 0; i < 700; i += size) gatherer.add(features.rows(i, std::min<int64_t>(i + size, 700)));
    gatherer.finish();
    return statistics;
  };
  const FeatureStatistics one_by_one = cut(1);
  expect_same(one_by_one, of(features));
  for (const int64_t size : {7, 256, 700}) {
    EXPECT_EQ(cut(size).mean(), one_by_one.mean()) << size;
    EXPECT_EQ(cut(size).covariance(), one_by_one.covariance()) << size;
  }
}

TEST(FeatureStatistics, RefuseWhatDoesNotFit) {
  FeatureStatistics statistics(3);
  EXPECT_THROW(statistics.add(random(2, 4, 1)), Error);
  EXPECT_THROW(FeatureGatherer(statistics).add(random(2, 4, 1)), Error);
  EXPECT_THROW(statistics.merge(FeatureStatistics(4)), Error);
  EXPECT_THROW(statistics.covariance(), Error);
  EXPECT_THROW(FeatureStatistics(2, {1, 2}, {1, 2, 3}), Error);
  EXPECT_THROW(FeatureStatistics(1, {1}, {1}), Error);
}

TEST(FrechetDistance, OfEqualSetsIsNothing) {
  const auto statistics = of(random(50, 8, 3));
  EXPECT_LT(frechet_distance(statistics, statistics), 1e-12);
}

TEST(FrechetDistance, OfShiftedSetsIsTheSquareOfTheShift) {
  const auto covariance = of(random(50, 2, 4)).covariance();
  EXPECT_NEAR(frechet_distance({50, {1, 2}, covariance}, {50, {4, -2}, covariance}), 25, 1e-12);
}

TEST(FrechetDistance, OfDiagonalCovariancesIsThatOfTheDeviations) {
  // Σ (σ₁ − σ₂)²: 1, 4 and 9
  EXPECT_NEAR(frechet_distance(diagonal({0, 0, 0}, {4, 9, 0}), diagonal({0, 0, 0}, {1, 25, 9})), 14, 1e-12);
}

TEST(FrechetDistance, IsSymmetricAndBlindToRotation) {
  const Tensor a = random(60, 2, 5), b = random(70, 2, 6);
  const auto turned = [](const Tensor& features) {
    Tensor result = features.clone();
    float* x = result.mutable_data<float>();
    for (int64_t i = 0; i < result.size(0); ++i) {  // by an angle whose sine is 0.6
      const float u = x[2 * i], v = x[2 * i + 1];
      x[2 * i] = 0.8f * u - 0.6f * v;
      x[2 * i + 1] = 0.6f * u + 0.8f * v;
    }
    return result;
  };
  const double distance = frechet_distance(of(a), of(b));
  EXPECT_GT(distance, 1e-3);
  EXPECT_NEAR(frechet_distance(of(b), of(a)), distance, 1e-12);
  EXPECT_NEAR(frechet_distance(of(turned(a)), of(turned(b))), distance, 1e-5);
}

TEST(FrechetDistance, OfSingularCovariancesKeepsItsDigits) {
  // Twelve vectors in 40 dimensions: 29 eigenvalues are nought, or what rounding leaves of it.
  const auto flat = of(random(12, 40, 7));
  EXPECT_LT(frechet_distance(flat, flat), 1e-10);
  std::vector<double> mean = flat.mean();
  mean[0] += 2;
  EXPECT_NEAR(frechet_distance(flat, {12, mean, flat.covariance()}), 4, 1e-10);
  EXPECT_DOUBLE_EQ(frechet_distance(diagonal({0, 0}, {0, 0}), diagonal({3, 4}, {0, 0})), 25);
}

TEST(FrechetDistance, IsWhatNumPyComputes) {
  const auto file = SafetensorsFile::open(LINNET_TEST_DATA "/reference/frechet.safetensors");
  const auto one = of(file.tensor("one")), other = of(file.tensor("other"));
  const auto covariance = one.covariance();
  const Tensor covariances = file.tensor("covariance"), distances = file.tensor("distance");
  const auto expected = covariances.values<double>();
  for (size_t i = 0; i < covariance.size(); ++i) EXPECT_NEAR(covariance[i], expected[i], 1e-12);
  const double distance = distances.values<double>()[0];
  EXPECT_NEAR(frechet_distance(one, other), distance, 1e-9 * distance);
}

TEST(FrechetDistance, RefusesFeaturesOfAnotherSize) {
  EXPECT_THROW(frechet_distance(of(random(5, 2, 1)), of(random(5, 3, 1))), Error);
  EXPECT_THROW(frechet_distance(of(random(5, 2, 1)), FeatureStatistics(2)), Error);
}

}  // namespace
}  // namespace linnet
