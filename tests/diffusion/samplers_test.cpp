// What the samplers themselves decide; what they compute is compared in pipeline/ with the originals.
#include "diffusion/samplers.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "support/compare.h"

namespace linnet {
namespace {

std::vector<int64_t> timesteps_of_dpm_solver(int steps) {
  std::vector<int64_t> timesteps;
  const Denoiser model = [&](const Tensor& x, const Tensor& t) {
    timesteps.push_back(static_cast<int64_t>(t.data<float>()[0]));
    return Tensor::zeros(x.shape());
  };
  sample_dpmpp_2m(model, Tensor::zeros({1, 1, 2, 2}), NoiseSchedule::linear(), steps, {}, TimeGrid::rounded);
  return timesteps;
}

// numpy.linspace(0, 999, steps + 1).round()[::-1][:-1], where 15·(999/30) is a little less than 499.5.
TEST(DpmSolver, RoundsItsGridAsNumpyDoes) {
  EXPECT_EQ(timesteps_of_dpm_solver(4), (std::vector<int64_t>{999, 749, 500, 250}));
  const auto thirty = timesteps_of_dpm_solver(30);
  ASSERT_EQ(thirty.size(), 30u);
  EXPECT_EQ(thirty[15], 499);
  EXPECT_EQ(timesteps_of_dpm_solver(26)[13], 499);
}

// What a sampler tells of one of its steps.
struct Told {
  Tensor x, x0;
};
Told told_at(int index, const std::function<void(const SamplingOptions&)>& run, bool clipped = false) {
  Told result;
  run({clipped, [&](const SamplingStep& step) {
         if (step.index == index) result = {step.x.clone(), step.x0.clone()};
       }});
  return result;
}

// As a model whose noise depends on the timestep alone.
Tensor waving(const Tensor& x, const Tensor& t) {
  return Tensor::full(x.shape(), std::cos(t.data<float>()[0]));
}

Tensor no_noise(const Shape& shape) { return Tensor::zeros(shape); }
Tensor unit_noise(const Shape& shape) { return Tensor::full(shape, 1.0f); }

// Song et al. 2020, equation 16: then it is the ancestral sampler, whose variance is the posterior's.
TEST(Ddim, WithEtaOneHasTheMeanAndTheVarianceOfThePosterior) {
  const NoiseSchedule schedule = NoiseSchedule::linear().spaced(5);
  const Tensor start = Generator(1).normal({2, 3, 4, 4});
  const auto first_step = [&](const NoiseSource& noise) {
    return told_at(0, [&](const auto& o) { sample_ddim(waving, start, schedule, 1, noise, o); }).x;
  };
  const Tensor mean = told_at(0, [&](const auto& o) { sample_ddpm(waving, start, schedule, no_noise, o); }).x;
  const Tensor quiet = first_step(no_noise), noisy = first_step(unit_noise);
  EXPECT_LT(test::relative_error(quiet, mean), 1e-5);
  const double deviation = std::sqrt(schedule.posterior_variance.back());
  for (int64_t i = 0; i < start.numel(); ++i)
    EXPECT_NEAR(noisy.data<float>()[i] - quiet.data<float>()[i], deviation, 1e-4);
}

// As ADM does it, and not with the noise as it was predicted: ε = (x − √ᾱ·x₀)/√(1−ᾱ).
TEST(Ddim, TheNoiseFollowsFromTheClippedPicture) {
  const NoiseSchedule schedule = NoiseSchedule::linear().spaced(3);
  const Tensor start = Tensor::full({1, 1, 2, 2}, 3.0f);
  const Denoiser model = [](const Tensor& x, const Tensor&) { return Tensor::zeros(x.shape()); };
  const Told first = told_at(
      0, [&](const auto& o) { sample_ddim(model, start, schedule, 0, {}, o); }, true);
  EXPECT_EQ(first.x0.data<float>()[0], 1.0f);
  const double kept = schedule.alpha_bar[2], next = schedule.alpha_bar[1];
  const double noise = (3 - std::sqrt(kept)) / std::sqrt(1 - kept);
  EXPECT_NEAR(first.x.data<float>()[0], std::sqrt(next) + std::sqrt(1 - next) * noise, 1e-4);
}

TEST(Samplers, KeepPredictedPicturesWithinBoundsOnlyWhereToldSo) {
  const NoiseSchedule full = NoiseSchedule::linear(), spaced = full.spaced(4);
  const Tensor start = Tensor::full({1, 1, 2, 2}, 3.0f);
  const std::map<std::string, std::function<void(const SamplingOptions&)>> samplers{
      {"ddpm", [&](const auto& o) { sample_ddpm(waving, start, spaced, no_noise, o); }},
      {"ddim", [&](const auto& o) { sample_ddim(waving, start, spaced, 0, {}, o); }},
      {"dpm++", [&](const auto& o) { sample_dpmpp_2m(waving, start, full, 4, o); }}};
  for (const auto& [name, sampler] : samplers) {
    EXPECT_EQ(told_at(0, sampler, true).x0.data<float>()[0], 1.0f) << name;
    EXPECT_GT(told_at(0, sampler, false).x0.data<float>()[0], 10.0f) << name;
  }
}

// A step of first order is made of the sample and the picture as they are there, and of nothing from before.
TEST(DpmSolver, OnTheFractionalGridEndsInFirstOrderWithLessThanTenSteps) {
  const NoiseSchedule full = NoiseSchedule::linear();
  const auto last_is_of_first_order = [&](int steps) {
    const auto run = [&](const SamplingOptions& o) {
      sample_dpmpp_2m(waving, Tensor::full({1, 1, 1, 1}, 2.0f), full, steps, o, TimeGrid::fractional);
    };
    const Told before = told_at(steps - 2, run), last = told_at(steps - 1, run);
    const double from = full.alpha_bar_at(999.0 / steps), to = full.alpha_bar[0];
    const double shrink = std::sqrt((1 - to) / (1 - from)), kept = std::sqrt(to) - shrink * std::sqrt(from);
    const double first_order =
        shrink * static_cast<double>(before.x.item()) + kept * static_cast<double>(last.x0.item());
    return std::abs(static_cast<double>(last.x.item()) - first_order) < 1e-4;
  };
  EXPECT_TRUE(last_is_of_first_order(9));
  EXPECT_FALSE(last_is_of_first_order(10));
}

}  // namespace
}  // namespace linnet
