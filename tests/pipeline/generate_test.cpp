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
      EXPECT_NEAR(picture.data<float>()[i], factor * static_cast<double>(x.data<float>()[i]), 1e-4)
          << name_of(kind);
  }
}

}  // namespace
}  // namespace linnet
