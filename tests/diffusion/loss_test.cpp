// The loss's gradient against finite differences, at the ends of the schedule too. Its values are compared with
// PyTorch's in tests/train.
#include "diffusion/loss.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "core/tape.h"

namespace linnet {
namespace {

constexpr Prediction kinds[] = {Prediction::epsilon, Prediction::v, Prediction::x0};

// What a model of that kind that knows everything predicts.
Tensor truth(Prediction kind, const NoiseSchedule& schedule, const Tensor& x0, const Tensor& noise,
             const Tensor& t) {
  if (kind != Prediction::v) return kind == Prediction::x0 ? x0 : noise;
  Tensor v = Tensor::empty(x0.shape());
  const int64_t each = x0.numel() / x0.size(0);
  for (int64_t i = 0; i < x0.numel(); ++i) {
    const double kept = schedule.alpha_bar[static_cast<size_t>(t.data<int64_t>()[i / each])];
    v.mutable_data<float>()[i] =
        static_cast<float>(std::sqrt(kept) * static_cast<double>(noise.data<float>()[i]) -
                           std::sqrt(1.0 - kept) * static_cast<double>(x0.data<float>()[i]));
  }
  return v;
}

class LossGradient : public testing::TestWithParam<std::tuple<int64_t, Prediction>> {};

TEST_P(LossGradient, AgreesWithFiniteDifferences) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  Generator generator(3);
  const Shape pictures{1, 2, 3, 3};
  Tensor x0 = generator.normal(pictures);
  for (int64_t i = 0; i < x0.numel(); ++i) x0.mutable_data<float>()[i] = std::tanh(x0.data<float>()[i]);
  x0.mutable_data<float>()[0] = -1.0f;  // both outermost bins
  x0.mutable_data<float>()[1] = 1.0f;
  const Tensor noise = generator.normal(pictures),
               t = Tensor::from(std::vector<int64_t>{std::get<0>(GetParam())});
  const Prediction kind = std::get<1>(GetParam());
  const Tensor xt = add_noise(schedule, x0, noise, t), target = truth(kind, schedule, x0, noise, t);
  // A prediction near the truth: far from it the likelihood of the first step is clamped and flat.
  Tensor prediction = Tensor::empty({1, 4, 3, 3});
  for (int64_t i = 0; i < prediction.numel(); ++i)
    prediction.mutable_data<float>()[i] =
        i < 18 ? target.data<float>()[i] + 0.01f * generator.uniform() : generator.uniform() - 0.5f;

  const auto loss_of = [&](const Tensor& p) {
    const DiffusionLoss loss = diffusion_loss(schedule, kind, p, x0, xt, noise, t);
    const float* losses = loss.losses.data<float>();
    return std::pair(static_cast<double>(losses[0]), static_cast<double>(losses[1]));
  };
  prediction.set_requires_grad(true);
  Tape tape;
  tape.backward(diffusion_loss(schedule, kind, prediction, x0, xt, noise, t).total);
  const Tensor gradient = prediction.grad();
  for (int64_t i = 0; i < prediction.numel(); ++i) {
    const float h = 1e-2f;
    Tensor up = prediction.detach().clone(), down = prediction.detach().clone();
    up.mutable_data<float>()[i] += h;
    down.mutable_data<float>()[i] -= h;
    // The bound's mean is held fixed: target channels feel the square error alone, variance channels the bound
    // alone.
    const bool is_target = i < 18;
    const double rise =
        is_target ? loss_of(up).first - loss_of(down).first : loss_of(up).second - loss_of(down).second;
    const double expected = rise / (2.0 * static_cast<double>(h));
    EXPECT_NEAR(gradient.data<float>()[i], expected, 1e-2 * std::abs(expected) + 1e-5) << "element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Timesteps, LossGradient,
                         testing::Combine(testing::Values(0, 1, 17, 500, 999), testing::ValuesIn(kinds)));

// The teacher's two terms alone: with the same prediction, x and t, what they add to the loss and to its
// gradient.
TEST(Distillation, AddsItsWeightedDistancesAndTheirGradients) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  Generator generator(9);
  const Shape pictures{2, 3, 2, 2}, predictions{2, 6, 2, 2};
  const Tensor x0 = generator.normal(pictures), noise = generator.normal(pictures);
  const Tensor t = Tensor::from(std::vector<int64_t>{3, 700}), xt = add_noise(schedule, x0, noise, t);
  const Teaching teaching{generator.normal(predictions), 0.5, 0.05};
  Tensor prediction = generator.normal(predictions);
  const auto gradient_with = [&](const Teaching& wanted, double& total) {
    Tensor leaf = prediction.clone();
    leaf.set_requires_grad(true);
    Tape tape;
    const DiffusionLoss loss = diffusion_loss(schedule, Prediction::epsilon, leaf, x0, xt, noise, t, wanted);
    total = static_cast<double>(loss.total.item());
    tape.backward(loss.total);
    return leaf.grad();
  };
  double with = 0, without = 0, expected = 0;
  const Tensor taught = gradient_with(teaching, with), alone = gradient_with({}, without);
  for (int64_t i = 0; i < prediction.numel(); ++i) {
    const double difference = static_cast<double>(prediction.data<float>()[i]) -
                              static_cast<double>(teaching.prediction.data<float>()[i]);
    const double share = (i / 12 % 2 == 0 ? 0.5 : 0.05) / 12 / 2;  // 12 values a half, 2 pictures
    expected += share * difference * difference;
    EXPECT_NEAR(taught.data<float>()[i] - alone.data<float>()[i], 2 * share * difference, 1e-5) << i;
  }
  EXPECT_NEAR(with - without, expected, 1e-4);
}

// Then its term is the square error again, weighed as that is, whatever is predicted.
TEST(Distillation, ATeacherThatKnowsTheTruthTeachesWhatThePicturesDo) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  Generator generator(10);
  const Tensor x0 = generator.normal({2, 3, 2, 2}), noise = generator.normal({2, 3, 2, 2});
  const Tensor t = Tensor::from(std::vector<int64_t>{90, 700}), xt = add_noise(schedule, x0, noise, t);
  for (const Prediction kind : kinds) {
    const Tensor prediction = generator.normal(x0.shape());
    const auto look = [&](const Teaching& teaching) {
      Tensor leaf = prediction.clone();
      leaf.set_requires_grad(true);
      Tape tape;
      const DiffusionLoss loss = diffusion_loss(schedule, kind, leaf, x0, xt, noise, t, teaching);
      tape.backward(loss.total);
      return std::pair(loss.losses, leaf.grad());
    };
    const auto [taught, with] = look({truth(kind, schedule, x0, noise, t), 1, 0});
    const auto [alone, without] = look({});
    for (int64_t picture = 0; picture < 2; ++picture)
      EXPECT_NEAR(taught.data<float>()[4 * picture + 2], alone.data<float>()[4 * picture],
                  1e-4f * alone.data<float>()[4 * picture])
          << name_of(kind);
    for (int64_t i = 0; i < with.numel(); ++i)
      EXPECT_NEAR(with.data<float>()[i], 2 * without.data<float>()[i],
                  1e-4f * std::abs(with.data<float>()[i]) + 1e-5f)
          << name_of(kind);
  }
}

TEST(Distillation, RefusesATeacherThatPredictsSomethingElse) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  const Tensor x = Tensor::zeros({1, 3, 2, 2}), t = Tensor::from(std::vector<int64_t>{3});
  EXPECT_THROW(diffusion_loss(schedule, Prediction::epsilon, Tensor::zeros({1, 6, 2, 2}), x, x, x, t,
                              {Tensor::zeros({1, 3, 2, 2}), 0.5, 0.05}),
               Error);
}

TEST(Prediction, TheNoiseIsFoundAgainInWhatIsPredicted) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  Generator generator(5);
  const Tensor x0 = generator.normal({3, 2, 2, 2}), noise = generator.normal({3, 2, 2, 2});
  const Tensor t = Tensor::from(std::vector<int64_t>{0, 400, 999}),
               times = Tensor::from(std::vector<float>{0, 400, 999});
  const Tensor xt = add_noise(schedule, x0, noise, t);
  for (const Prediction kind : kinds) {
    const Tensor found = noise_from(kind, schedule, truth(kind, schedule, x0, noise, t), xt, times);
    for (int64_t i = 0; i < noise.numel(); ++i)
      EXPECT_NEAR(found.data<float>()[i], noise.data<float>()[i], 1e-4) << name_of(kind);
  }
}

TEST(Prediction, OfTheTruthCostsNoSquareError) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  Generator generator(6);
  const Tensor x0 = generator.normal({3, 2, 2, 2}), noise = generator.normal({3, 2, 2, 2});
  const Tensor t = Tensor::from(std::vector<int64_t>{0, 400, 999}), xt = add_noise(schedule, x0, noise, t);
  for (const Prediction kind : kinds) {
    const Tensor losses =
        diffusion_loss(schedule, kind, truth(kind, schedule, x0, noise, t), x0, xt, noise, t).losses;
    for (int64_t i = 0; i < 3; ++i) EXPECT_LT(losses.data<float>()[4 * i], 1e-12) << name_of(kind);
  }
}

// Up to where almost no noise is left, what it costs to predict a picture wrongly is what it costs to predict v
// so.
TEST(Prediction, AnErrorInThePictureCostsWhatItMeansInV) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  Generator generator(7);
  const Tensor x0 = generator.normal({3, 2, 2, 2}), noise = generator.normal({3, 2, 2, 2});
  const Tensor t = Tensor::from(std::vector<int64_t>{30, 400, 999}), xt = add_noise(schedule, x0, noise, t);
  const Tensor wrong = generator.normal(x0.shape());
  // v = (√ᾱ·x_t − x₀)/√(1−ᾱ)
  Tensor v = Tensor::empty(x0.shape());
  for (int64_t i = 0; i < v.numel(); ++i) {
    const double kept = schedule.alpha_bar[static_cast<size_t>(t.data<int64_t>()[i / 8])];
    v.mutable_data<float>()[i] =
        static_cast<float>((std::sqrt(kept) * static_cast<double>(xt.data<float>()[i]) -
                            static_cast<double>(wrong.data<float>()[i])) /
                           std::sqrt(1.0 - kept));
  }
  const Tensor as_picture = diffusion_loss(schedule, Prediction::x0, wrong, x0, xt, noise, t).losses;
  const Tensor as_v = diffusion_loss(schedule, Prediction::v, v, x0, xt, noise, t).losses;
  for (int64_t i = 0; i < 12; i += 4)
    EXPECT_NEAR(as_picture.data<float>()[i], as_v.data<float>()[i], 1e-4f * as_v.data<float>()[i]);
}

// At the last timesteps s is a hundredth, and an error of the picture counts as if it were a twentieth.
TEST(Prediction, AnErrorInThePictureCountsNoMoreThanAtATwentiethOfNoise) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  const Tensor x0 = Tensor::zeros({2, 1, 2, 2}), noise = Generator(8).normal(x0.shape());
  const Tensor t = Tensor::from(std::vector<int64_t>{0, 4}), xt = add_noise(schedule, x0, noise, t);
  const Tensor losses =
      diffusion_loss(schedule, Prediction::x0, Tensor::full(x0.shape(), 0.1f), x0, xt, noise, t).losses;
  for (int64_t i = 0; i < 8; i += 4) EXPECT_NEAR(losses.data<float>()[i], 0.01 / (0.05 * 0.05), 1e-4);
}

// The bound sees the picture that a prediction means, and not how it was predicted.
TEST(Prediction, OfTheSamePictureHasTheSameBound) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  Generator generator(11);
  const Shape half{4, 2, 2, 2};
  Tensor x0 = generator.normal(half);
  for (float& value : std::span(x0.mutable_data<float>(), 32)) value = std::tanh(value);
  const Tensor noise = generator.normal(half), variance = generator.normal(half);
  const Tensor t = Tensor::from(std::vector<int64_t>{0, 20, 300, 700}), xt = add_noise(schedule, x0, noise, t);
  const auto bounds = [&](Prediction kind) {
    Tensor prediction = Tensor::empty({4, 4, 2, 2});
    for (int64_t i = 0; i < 32; ++i) {
      const double kept = schedule.alpha_bar[static_cast<size_t>(t.data<int64_t>()[i / 8])];
      const double a = std::sqrt(kept), s = std::sqrt(1.0 - kept);
      // A picture that is a little wrong, and the noise and v that it means.
      const double x = static_cast<double>(xt.data<float>()[i]),
                   picture = static_cast<double>(x0.data<float>()[i]) + 0.002 * static_cast<double>(i % 3),
                   epsilon = (x - a * picture) / s;
      const double told = kind == Prediction::x0  ? picture
                          : kind == Prediction::v ? a * epsilon - s * picture
                                                  : epsilon;
      float* const to = prediction.mutable_data<float>() + i / 8 * 16 + i % 8;
      to[0] = static_cast<float>(told);
      to[8] = variance.data<float>()[i];
    }
    const Tensor losses = diffusion_loss(schedule, kind, prediction, x0, xt, noise, t).losses;
    std::vector<float> result;
    for (int64_t i = 0; i < 4; ++i) result.push_back(losses.data<float>()[4 * i + 1]);
    return result;
  };
  const std::vector<float> expected = bounds(Prediction::epsilon);
  for (const Prediction kind : {Prediction::v, Prediction::x0})
    for (size_t i = 0; i < 4; ++i)
      EXPECT_NEAR(bounds(kind)[i], expected[i], 1e-3f * std::abs(expected[i]) + 1e-5f)
          << name_of(kind) << ", picture " << i;
}

TEST(NoiseSchedule, BetweenTimestepsTheLogarithmIsInterpolated) {
  const NoiseSchedule schedule = NoiseSchedule::linear();
  const double below = std::log(schedule.alpha_bar[900]), above = std::log(schedule.alpha_bar[901]);
  EXPECT_NEAR(std::log(schedule.alpha_bar_at(900.25)), 0.75 * below + 0.25 * above, 1e-9);
}

TEST(NoiseSchedule, RespacingKeepsTheNoiseLevels) {
  const NoiseSchedule full = NoiseSchedule::linear(), spaced = full.spaced(50);
  for (size_t i = 0; i < 50; ++i)
    EXPECT_NEAR(spaced.alpha_bar[i], full.alpha_bar[static_cast<size_t>(spaced.timestep[i])], 1e-12);
  EXPECT_EQ(spaced.timestep.front(), 0);
  EXPECT_EQ(spaced.timestep.back(), 999);
}

TEST(NoiseSchedule, OneStepIsFromNoiseAlone) {
  EXPECT_EQ(NoiseSchedule::linear().spaced(1).timestep, std::vector<int>{999});
}

TEST(NoiseSchedule, RefusesImpossibleCounts) {
  EXPECT_THROW(NoiseSchedule::linear().spaced(0), UsageError);
  EXPECT_THROW(NoiseSchedule::linear().spaced(1001), UsageError);
}

}  // namespace
}  // namespace linnet
