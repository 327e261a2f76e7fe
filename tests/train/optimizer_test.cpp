// What a configuration says reaches the optimisers' steps, which tests/ops compares with their formulas.
#include "train/optimizer.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "core/tape.h"
#include "ops/adamw.h"
#include "ops/muon.h"
#include "support/compare.h"

namespace linnet {
namespace {

using test::relative_error;

// Settings of which none is another's or the usual one.
OptimizerConfig unusual() {
  OptimizerConfig config;
  config.beta1 = 0.6;
  config.beta2 = 0.7;
  config.beta3 = 0.8;
  config.epsilon = 0.05;
  config.momentum = 0.5;
  config.weight_decay = 0.3;
  config.ema = 0.9;
  config.clip = 2;
  config.precision = "f32";
  return config;
}

constexpr double lr = 0.01;
constexpr float f_lr = 0.01f;

// Three steps of one matrix by an optimiser, and beside it what the test makes of the same gradients.
class OptimizerSteps : public testing::Test {
 protected:
  void walk(std::string_view optimizer,
            const std::function<void(int64_t step, const Tensor& clip, const Tensor& gradient)>& expected) {
    parameter_.value = value_.clone();
    parameter_.block_matrix = true;
    Optimizer steps({{"blocks.0.weight", &parameter_}}, {{"blocks.0.weight", &average_}}, optimizer);
    for (int64_t i = 0; i < 3; ++i) {
      const Tensor gradient = Generator(static_cast<uint64_t>(10 + i)).normal(value_.shape());
      const ops::Clip clip = ops::clip_to(2, {gradient}, {});
      ASSERT_LT(clip.factor.item(), 0.5f);
      accumulate_grad(parameter_.value.grad_slot(), gradient.clone());
      EXPECT_EQ(steps.step(unusual(), lr, i).item(), clip.norm.item());
      expected(i, clip.factor, gradient);
    }
    EXPECT_LT(relative_error(parameter_.value, value_), 1e-7);
    EXPECT_LT(relative_error(average_.value, ema_), 1e-7);
  }

  Tensor value_ = Generator(1).normal({16, 24}), ema_ = value_.clone(), mean_ = Tensor::zeros({16, 24});
  nn::Parameter parameter_{value_.shape(), nn::Init::zero()}, average_{value_.shape(), nn::Init::zero()};
};

TEST_F(OptimizerSteps, OfAdamWAreAsConfigured) {
  Tensor square = Tensor::zeros({16, 24});
  walk("adamw", [&](int64_t step, const Tensor& clip, const Tensor& gradient) {
    ops::adamw_step({f_lr, 0.6f, 0.7f, 0.05f, 0.3f, step + 1, 0.9f}, clip,
                    {{value_, gradient, mean_, square, ema_}});
  });
}

TEST_F(OptimizerSteps, OfCameAreAsConfigured) {
  ops::CameState state = ops::fresh_came_state(value_.shape());
  walk("came", [&](int64_t, const Tensor& clip, const Tensor& gradient) {
    ops::came_step({f_lr, 0.6f, 0.7f, 0.8f, 0.3f, 0.9f}, clip, value_, gradient, state, ema_);
  });
}

TEST_F(OptimizerSteps, OfMuonAreAsConfigured) {
  walk("muon", [&](int64_t, const Tensor& clip, const Tensor& gradient) {
    ops::muon_step({f_lr, 0.5f, 0.3f, 0.9f}, clip, {{value_, gradient, mean_, {}, ema_}}, DType::f32);
  });
}

// A matrix of a few rows or columns is rather a table.
TEST(Optimizer, NarrowMatricesAreAdamWsWhateverTheSide) {
  const auto by_muon = [](const Shape& shape) {
    nn::Parameter parameter{shape, nn::Init::zero()}, average = parameter;
    parameter.value = Tensor::zeros(shape);
    parameter.block_matrix = true;
    for (const auto& [name, tensor] :
         Optimizer({{"blocks.0.weight", &parameter}}, {{"blocks.0.weight", &average}}, "muon").state())
      if (name == "square.blocks.0.weight") return false;
    return true;
  };
  EXPECT_TRUE(by_muon({16, 16}));
  EXPECT_FALSE(by_muon({15, 64}));
  EXPECT_FALSE(by_muon({64, 15}));
}

}  // namespace
}  // namespace linnet
