// Learning from a teacher: what is measured, that it works, and teachers that do not fit.
#include <gtest/gtest.h>

#include "store/model_file.h"
#include "train/trainer.h"

namespace linnet {
namespace {

std::string reference(const std::string& name) { return fmt::format("{}/reference/{}.safetensors", LINNET_TEST_DATA, name); }

class Distillation : public testing::Test {
 protected:
  Distillation() {
    config_.model = read_model_config(reference("training.lit.model"));
    config_.data.replay = reference("training.lit");
    config_.train.batch = 3;
    config_.train.steps = 10;
    config_.train.lr = 1e-3;
    config_.train.precision = "f32";
    config_.distil = {"teacher", 1.0, 0.05};
    data_ = open_data(config_);
  }
  static std::unique_ptr<DiT> load(const std::string& name) { return std::move(load_model(reference(name)).model); }

  TrainConfig config_;
  std::unique_ptr<BatchSource> data_;
};

TEST_F(Distillation, AStudentThatIsItsTeacherHasNothingToLearnFromIt) {
  Trainer trainer(config_, *data_);
  trainer.start_from(*load("training.lit.model"));
  trainer.learn_from(load("training.lit.model"));
  const StepMetrics m = trainer.step(data_->batch(0));
  EXPECT_LT(m.noise_distance, 1e-9);
  EXPECT_LT(m.variance_distance, 1e-9);
  EXPECT_NEAR(m.loss, m.mse + m.bound, 1e-5);
}

TEST_F(Distillation, TheLossIsTheWeightedSum) {
  Trainer trainer(config_, *data_);
  trainer.learn_from(load("training.softmax.model"));
  const StepMetrics m = trainer.step(data_->batch(0));
  EXPECT_GT(m.noise_distance, 0);
  EXPECT_GT(m.variance_distance, 0);
  EXPECT_NEAR(m.loss, m.mse + m.bound + 1.0 * m.noise_distance + 0.05 * m.variance_distance, 1e-5 * m.loss);
}

// The pictures' own noise pulls elsewhere than this random teacher: the teacher must weigh more to show.
TEST_F(Distillation, BringsTheStudentNearer) {
  config_.distil.noise = 20;
  Trainer trainer(config_, *data_);
  trainer.learn_from(load("training.softmax.model"));
  const Batch batch = data_->batch(0);
  const double before = trainer.step(batch).noise_distance;
  double after = before;
  for (int i = 0; i < 60; ++i) after = trainer.step(batch).noise_distance;
  EXPECT_LT(after, 0.7 * before);
}

TEST_F(Distillation, RefusesTeachersThatDoNotFit) {
  Trainer trainer(config_, *data_);
  const auto refusal = [&](const std::function<void(DiTConfig&)>& change) -> std::string {
    DiTConfig config = config_.model;
    change(config);
    auto teacher = std::make_unique<DiT>(config);
    nn::initialize(*teacher, 1);
    try {
      trainer.learn_from(std::move(teacher));
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal([](DiTConfig& c) { c.depth += 1, c.hidden_size *= 2; }), "accepted");
  EXPECT_NE(refusal([](DiTConfig& c) { c.input_size *= 2; }).find("the teacher takes"), std::string::npos);
  EXPECT_NE(refusal([](DiTConfig& c) { c.num_classes += 1; }).find("the teacher knows"), std::string::npos);
  EXPECT_NE(refusal([](DiTConfig& c) { c.learn_sigma = !c.learn_sigma; }).find("the teacher predicts"), std::string::npos);
  EXPECT_NE(refusal([](DiTConfig& c) { c.prediction = Prediction::v; }).find("the teacher predicts v"), std::string::npos);
}

}  // namespace
}  // namespace linnet
