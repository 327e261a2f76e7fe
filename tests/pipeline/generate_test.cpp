// What a picture is made of, where a model is simple enough to say it beforehand.
#include "pipeline/generate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

// A fresh model predicts 0 everywhere (its last layer starts at 0), so one DDIM step gives the x₀ of that
// prediction.
TEST(Generate, OneStepGivesThePictureThatThePredictionMeans) {
  DiTConfig config = test::tiny_dit();
  const NoiseSchedule one = NoiseSchedule::linear().spaced(1);
  const double kept = one.alpha_bar[0];
  const Tensor x = Generator(8).normal({2, 4, 8, 8});
  GenerateOptions options;
  options.steps = 1;
  options.clip_x0 = false;
  for (const Prediction kind : {Prediction::epsilon, Prediction::v, Prediction::x0}) {
    config.prediction = kind;
    DiT model(config);
    nn::initialize(model, 1);
    const Tensor picture = generate(model, {0, 2}, {1, 2}, options, x);
    // ε = 0: x₀ = x/√ᾱ; v = 0: x₀ = √ᾱ·x.
    const double factor = kind == Prediction::x0  ? 0.0
                          : kind == Prediction::v ? std::sqrt(kept)
                                                  : 1.0 / std::sqrt(kept);
    for (int64_t i = 0; i < x.numel(); ++i)
      EXPECT_NEAR(picture.data<float>()[i], factor * static_cast<double>(x.data<float>()[i]),
                  1e-4 * std::max(1.0, factor))
          << name_of(kind);
  }
}

// Ten steps at timesteps 0, 111, ... 999; the model is asked for two only where there is guidance.
TEST(Sample, GuidanceKeepsToItsInterval) {
  const auto asked_at = [](float scale, TimeInterval guided) {
    std::vector<float> plain, both;
    const auto noting = [](std::vector<float>& times) {
      return [&times](const Tensor& x, const Tensor& t) {
        times.push_back(t.data<float>()[0]);
        return Tensor::zeros(x.shape());
      };
    };
    GenerateOptions options;
    options.steps = 10;
    options.guidance_scale = scale;
    options.guided = guided;
    sample({noting(plain), noting(both)}, Prediction::epsilon, {4, 2, 2}, {1, 2, 3}, options);
    return std::pair(plain, both);
  };
  const auto late = asked_at(3, {0, 300}), whole = asked_at(3, {}), none = asked_at(1, {0, 300});
  EXPECT_EQ(late.second, (std::vector<float>{222, 111, 0}));
  EXPECT_EQ(late.first.size(), 7u);
  EXPECT_EQ(whole.second.size(), 10u);
  EXPECT_EQ(none.first.size(), 10u);
  EXPECT_EQ(asked_at(3, {333, 555}).second, (std::vector<float>{555, 444, 333}));
}

TEST(Sample, LooksAtTheModelOnTheGridThatIsSaid) {
  const auto asked_at = [](TimeGrid grid) {
    std::vector<float> times;
    const auto noting = [&times](const Tensor& x, const Tensor& t) {
      times.push_back(t.data<float>()[0]);
      return Tensor::zeros(x.shape());
    };
    GenerateOptions options;
    options.sampler = Sampler::dpmpp;
    options.steps = 4;
    options.guidance_scale = 1;
    options.grid = grid;
    sample({noting, noting}, Prediction::epsilon, {4, 2, 2}, {1}, options);
    return times;
  };
  EXPECT_EQ(asked_at(TimeGrid::rounded), (std::vector<float>{999, 749, 500, 250}));
  const std::vector<float> fractional = asked_at(TimeGrid::fractional);
  ASSERT_EQ(fractional.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(fractional[i], 999.0f * (1 - static_cast<float>(i) / 4), 1e-2);
}

}  // namespace
}  // namespace linnet
