// The loss's gradient against finite differences, at the ends of the schedule too. Its values are compared with
// PyTorch's in tests/train.
#include "diffusion/loss.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "core/tape.h"

namespace linnet {
namespace {

class LossGradient : public testing::TestWithParam<int64_t> {};

TEST_P(LossGradient, AgreesWithFiniteDifferences) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  Generator generator(3);
  const Shape pictures{1, 2, 3, 3};
  Tensor x0 = generator.normal(pictures);
  for (int64_t i = 0; i < x0.numel(); ++i) x0.mutable_data<float>()[i] = std::tanh(x0.data<float>()[i]);
  x0.mutable_data<float>()[0] = -1.0f;  // both outermost bins
  x0.mutable_data<float>()[1] = 1.0f;
  const Tensor noise = generator.normal(pictures), t = Tensor::from(std::vector<int64_t>{GetParam()});
  const Tensor xt = add_noise(schedule, x0, noise, t);
  // A prediction near the truth: far from it the likelihood of the first step is clamped and flat.
  Tensor prediction = Tensor::empty({1, 4, 3, 3});
  for (int64_t i = 0; i < prediction.numel(); ++i)
    prediction.mutable_data<float>()[i] = i < 18 ? noise.data<float>()[i] + 0.01f * generator.uniform() : generator.uniform() - 0.5f;

  const auto loss_of = [&](const Tensor& p) {
    const DiffusionLoss loss = diffusion_loss(schedule, p, x0, xt, noise, t);
    return std::pair(loss.mse[0], loss.bound[0]);
  };
  prediction.set_requires_grad(true);
  Tape tape;
  tape.backward(diffusion_loss(schedule, prediction, x0, xt, noise, t).total);
  const Tensor gradient = prediction.grad();
  for (int64_t i = 0; i < prediction.numel(); ++i) {
    const float h = 1e-2f;
    Tensor up = prediction.detach().clone(), down = prediction.detach().clone();
    up.mutable_data<float>()[i] += h;
    down.mutable_data<float>()[i] -= h;
    // The bound's mean is held fixed: noise channels feel the square error alone, variance channels the bound alone.
    const bool is_noise = i < 18;
    const double rise = is_noise ? loss_of(up).first - loss_of(down).first : loss_of(up).second - loss_of(down).second;
    const double expected = rise / (2.0 * static_cast<double>(h));
    EXPECT_NEAR(gradient.data<float>()[i], expected, 1e-2 * std::abs(expected) + 1e-5) << "element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Timesteps, LossGradient, testing::Values(0, 1, 17, 500, 999));

TEST(NoiseSchedule, RespacingKeepsTheNoiseLevels) {
  const NoiseSchedule full = NoiseSchedule::linear(), spaced = full.spaced(50);
  for (size_t i = 0; i < 50; ++i)
    EXPECT_NEAR(spaced.alpha_bar[i], full.alpha_bar[static_cast<size_t>(spaced.timestep[i])], 1e-12);
  EXPECT_EQ(spaced.timestep.front(), 0);
  EXPECT_EQ(spaced.timestep.back(), 999);
}

TEST(NoiseSchedule, RefusesImpossibleCounts) {
  EXPECT_THROW(NoiseSchedule::linear().spaced(0), UsageError);
  EXPECT_THROW(NoiseSchedule::linear().spaced(1001), UsageError);
}

}  // namespace
}  // namespace linnet
