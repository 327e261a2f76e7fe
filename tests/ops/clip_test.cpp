// Clipping of the gradient's norm against its formula.
#include "ops/clip.h"

#include "ops/support.h"

namespace linnet::ops::test {
namespace {

double number(const Tensor& x) { return static_cast<double>(x.item()); }

TEST(Clip, FollowsItsFormula) {
  const std::vector<Tensor> gradients{random({3, 5}, 1), random({70001}, 2), random({1}, 3)};
  double squares = 0;
  for (const Tensor& gradient : gradients)
    for (const double x : values_of(gradient)) squares += x * x;
  const double norm = std::sqrt(squares);
  for (const auto& [limit, factor] : {std::pair{0.0, 1.0}, {norm / 3, 1.0 / 3}, {norm * 3, 1.0}}) {
    const Clip clip = clip_to(limit, gradients, {});
    EXPECT_NEAR(number(clip.norm), norm, 1e-5 * norm) << limit;
    EXPECT_NEAR(number(clip.factor), factor, 1e-5) << limit;
  }
}

TEST(Clip, OfAnInfiniteGradientLeavesNothing) {
  Tensor gradient = random({100}, 1);
  gradient.mutable_data<float>()[7] = -std::numeric_limits<float>::infinity();
  const Clip limited = clip_to(2.0, {gradient, random({3}, 2)}, {}), free = clip_to(0.0, {gradient}, {});
  EXPECT_TRUE(std::isinf(number(limited.norm)));
  EXPECT_EQ(number(limited.factor), 0.0);
  EXPECT_EQ(number(free.factor), 1.0);
}

TEST(Clip, OfNoGradientsChangesNothing) {
  const Clip clip = clip_to(1.0, {}, {});
  EXPECT_EQ(number(clip.norm), 0.0);
  EXPECT_EQ(number(clip.factor), 1.0);
}

}  // namespace
}  // namespace linnet::ops::test
