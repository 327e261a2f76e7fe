// A training step's own decisions; its numbers are compared with PyTorch's in training_reference_test.cpp.
#include "train/trainer.h"

#include <gtest/gtest.h>

#include "store/dit_file.h"
#include "store/transformer_file.h"
#include "support/compare.h"

namespace linnet {
namespace {

std::string reference(const std::string& name) {
  return fmt::format("{}/reference/{}.safetensors", LINNET_TEST_DATA, name);
}

class TrainerSteps : public testing::Test {
 protected:
  TrainerSteps() {
    config_.model = read_model_config(Weights::open(reference("training.lit.model")));
    config_.data.replay = reference("training.lit");
    config_.train.batch = 3;
    config_.train.lr = 1e-3;
    config_.train.precision = "f32";
    data_ = open_data(config_);
  }

  TrainConfig config_;
  std::unique_ptr<BatchSource> data_;
};

TEST_F(TrainerSteps, HaveTheRateOfTheirNumber) {
  config_.train.warmup = 4;
  Trainer trainer(config_, *data_);
  for (int64_t step = 0; step < 6; ++step) {
    const StepMetrics m = trainer.step(data_->batch(step));
    EXPECT_EQ(m.step, step + 1);
    EXPECT_DOUBLE_EQ(m.lr, learning_rate(config_.train, step));
  }
}

// Of every term, so that they add up to the loss.
TEST_F(TrainerSteps, InPartsTellTheMeanOfEveryTerm) {
  config_.distil = {"teacher", 0.5, 0.05, "f32"};
  const auto first = [&](int64_t parts) {
    config_.train.accumulate = parts;
    Trainer trainer(config_, *data_);
    trainer.learn_from(std::make_shared<ClassTrainee>(load_dit(reference("training.distilled.teacher")).model));
    return trainer.step(data_->batch(0));
  };
  const StepMetrics whole = first(1), parts = first(3);
  EXPECT_NEAR(parts.loss, whole.loss, 1e-5 * whole.loss);
  EXPECT_NEAR(parts.mse, whole.mse, 1e-5 * whole.mse);
  EXPECT_NEAR(parts.bound, whole.bound, 1e-5 * whole.bound);
  EXPECT_NEAR(parts.noise_distance, whole.noise_distance, 1e-5 * whole.noise_distance);
  EXPECT_NEAR(parts.variance_distance, whole.variance_distance, 1e-5 * whole.variance_distance);
  EXPECT_NEAR(parts.gradient_norm, whole.gradient_norm, 1e-4 * whole.gradient_norm);
}

TEST_F(TrainerSteps, OfAnotherSeedBeginWithOtherWeights) {
  const auto weight = [&](int64_t seed) {
    config_.train.seed = seed;
    Trainer trainer(config_, *data_);
    for (const auto& [name, parameter] : nn::learned_parameters(trainer.model()))
      if (name == "blocks.0.mlp.fc1.weight") return parameter->value.clone();
    return Tensor();
  };
  EXPECT_GT(test::relative_error(weight(1), weight(2)), 0.5);
  EXPECT_EQ(test::relative_error(weight(1), weight(1)), 0);
}

}  // namespace
}  // namespace linnet
