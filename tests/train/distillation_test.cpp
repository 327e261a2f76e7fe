// Learning from a teacher: the loss and its gradient beside PyTorch's, what the teacher sees, what it costs in
// memory, and teachers that do not fit.
#include <gtest/gtest.h>

#include "io/safetensors.h"
#include "ops/matmul.h"
#include "store/dit_file.h"
#include "store/transformer_file.h"
#include "support/compare.h"
#include "support/processor.h"
#include "train/trainer.h"

namespace linnet {
namespace {

std::string reference(const std::string& name) {
  return fmt::format("{}/reference/{}.safetensors", LINNET_TEST_DATA, name);
}

class Distillation : public testing::Test {
 protected:
  Distillation() {
    config_.model = read_model_config(Weights::open(reference("training.lit.model")));
    config_.data.replay = reference("training.lit");
    config_.train.batch = 3;
    config_.train.steps = 10;
    config_.train.lr = 1e-3;
    config_.train.precision = "f32";
    config_.train.ema = 0.9;
    config_.distil = {"teacher", 1.0, 0.05, "f32"};
    data_ = open_data(config_);
  }
  static std::shared_ptr<ClassTrainee> load(const std::string& name) {
    return std::make_shared<ClassTrainee>(load_dit(reference(name)).model);
  }

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

TEST(ModelInsideTheProgram, OfTextsMayBeAStart) {
  const TrainConfig config =
      parse_train_config("[data]\npath = 'pictures'\n[train]\ninit = 'builtin-text'\n", {});
  EXPECT_EQ(load_trainee(config.train.init, config.model)->config(), config.model);
}

TEST_F(Distillation, AStudentStartsFromWeightsInEightBitsAsFromTheirFloats) {
  config_.train.precision = "f32";
  const auto rounded = load("training.lit.model"), floats = load("training.lit.model");
  for (const auto& model : {rounded, floats}) model->set_product_dtype(DType::i8);
  floats->set_product_dtype(DType::f32);
  Trainer from_rounded(config_, *data_), from_floats(config_, *data_);
  from_rounded.start_from(*rounded);
  from_floats.start_from(*floats);
  EXPECT_EQ(from_rounded.step(data_->batch(0)).loss, from_floats.step(data_->batch(0)).loss);
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
    DiTConfig config = config_.of_classes();
    change(config);
    auto teacher = std::make_shared<DiT>(config);
    nn::initialize(*teacher, 1);
    try {
      trainer.learn_from(std::make_shared<ClassTrainee>(teacher));
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal([](DiTConfig& c) { c.depth += 1, c.hidden_size *= 2; }), "accepted");
  EXPECT_NE(refusal([](DiTConfig& c) { c.input_size *= 2; }).find("takes 16x16 in 4 channels, the student 8x8"),
            std::string::npos);
  EXPECT_NE(refusal([](DiTConfig& c) {
              c.num_classes += 1;
            }).find("knows 4 classes and none, the student 3 classes and none"),
            std::string::npos);
  EXPECT_NE(refusal([](DiTConfig& c) { c.learn_sigma = !c.learn_sigma; }).find("the teacher predicts"),
            std::string::npos);
  EXPECT_NE(refusal([](DiTConfig& c) { c.prediction = Prediction::v; }).find("the teacher predicts v"),
            std::string::npos);
}

// Student and data of training.lit; the teacher is wider, deeper, of softmax attention, and stored in bf16.
class DistillationReference : public Distillation {
 protected:
  DistillationReference() {
    config_.distil.noise = 0.5;
    config_.distil.variance = 0.05;
  }
  Trainer trainer() const {
    Trainer result(config_, *data_);
    result.start_from(*load("training.lit.model"));
    result.learn_from(load("training.distilled.teacher"));
    return result;
  }
  void expect_curve(std::string_view name, int64_t step, double value, double tolerance) const {
    const double expected = dumps_.tensor(name).data<float>()[step];
    EXPECT_NEAR(value, expected, tolerance * std::abs(expected)) << name << ", step " << step;
  }

  const SafetensorsFile dumps_ = SafetensorsFile::open(reference("training.distilled"));
};

TEST_F(DistillationReference, TheDataDropClasses) {
  int64_t dropped = 0, kept = 0;
  for (int64_t step = 0; step < 10; ++step) {
    const Tensor classes = data_->batch(step).y;
    for (const int64_t y : classes.values<int64_t>())
      ++(y == config_.of_classes().num_classes ? dropped : kept);
  }
  EXPECT_GT(dropped, 3);
  EXPECT_GT(kept, 3);
}

TEST_F(DistillationReference, TheFirstGradientsAgree) {
  Trainer t = trainer();
  t.gather_gradients(data_->batch(0));
  for (const auto& [name, parameter] : nn::learned_parameters(t.model()))
    EXPECT_LT(test::relative_error(parameter->value.grad(), dumps_.tensor("grad0." + name)), 1e-4) << name;
}

TEST_F(DistillationReference, TenStepsAgree) {
  Trainer t = trainer();
  for (int64_t i = 0; i < 10; ++i) {
    const StepMetrics m = t.step(data_->batch(i));
    expect_curve("loss", i, m.loss, 1e-4);
    expect_curve("mse", i, m.mse, 1e-4);
    expect_curve("vb", i, m.bound, 1e-4);
    expect_curve("noise_distance", i, m.noise_distance, 1e-4);
    expect_curve("variance_distance", i, m.variance_distance, 1e-4);
  }
  for (const auto& [name, parameter] : nn::learned_parameters(t.model()))
    EXPECT_LT(test::relative_error(parameter->value, dumps_.tensor("final." + name)), 1e-4) << name;
}

TEST_F(DistillationReference, InPartsAndWithATeacherInBf16TheyStayClose) {
  LINNET_NEED_BF16_PRODUCTS();
  config_.train.accumulate = 3;
  config_.distil.precision = "bf16";
  Trainer t = trainer();
  for (int64_t i = 0; i < 10; ++i) expect_curve("loss", i, t.step(data_->batch(i)).loss, 2e-2);
}

TEST_F(DistillationReference, WithATeacherInEightBitsTheyStayClose) {
  config_.distil.precision = "int8";
  Trainer t = trainer();
  for (int64_t i = 0; i < 10; ++i) expect_curve("loss", i, t.step(data_->batch(i)).loss, 2e-2);
}

// A teacher that is its student but for what it says of one class: it can only be told apart in pictures of
// that class.
class WhatTheTeacherSees : public Distillation {
 protected:
  // How far apart they are over a batch, if their embeddings of that class (-1: of none) differ.
  double distance(const Batch& batch, int64_t different_class) {
    Trainer trainer(config_, *data_);
    trainer.start_from(*load("training.lit.model"));
    auto teacher = load("training.lit.model");
    for (auto& [name, parameter] : nn::learned_parameters(*teacher)) {
      if (name != "y_embedder.embedding_table.weight") continue;
      parameter->value = parameter->value.clone();
      const int64_t width = parameter->shape[1];
      for (int64_t i = 0; i < parameter->shape.numel(); ++i)
        if (i / width == different_class) parameter->value.mutable_data<float>()[i] += 1.0f;
    }
    trainer.learn_from(teacher);
    return trainer.gather_gradients(batch).noise_distance;
  }
  Batch of_classes(const std::vector<int64_t>& classes) const {
    Batch batch = data_->batch(0);
    batch.y = Tensor::from(classes);
    return batch;
  }
  static constexpr double same = 1e-9, different = 1e-4;
};

TEST_F(WhatTheTeacherSees, AKeptClassIsKept) {
  EXPECT_LT(distance(of_classes({0, 1, 1}), 2), same);
  EXPECT_LT(distance(of_classes({0, 1, 1}), 3), same) << "nothing was dropped";
  EXPECT_GT(distance(of_classes({0, 1, 2}), 2), different);
}

TEST_F(WhatTheTeacherSees, ADroppedClassIsDropped) {
  EXPECT_GT(distance(of_classes({3, 3, 3}), 3), different);
  for (const int64_t kept : {0, 1, 2}) EXPECT_LT(distance(of_classes({3, 3, 3}), kept), same);
}

TEST_F(WhatTheTeacherSees, EveryPartOfABatchHasItsOwnClasses) {
  config_.train.accumulate = 3;
  EXPECT_GT(distance(of_classes({0, 1, 2}), 2), different);
  EXPECT_LT(distance(of_classes({0, 1, 1}), 2), same);
}

// Whatever the picture, its noise and its timestep: both see the same, or a teacher that is its student would
// differ.
TEST_F(WhatTheTeacherSees, ItIsTheStudentsNoisyPictureAndTimestep) {
  for (const int64_t accumulate : {1, 3}) {
    config_.train.accumulate = accumulate;
    for (int64_t step = 0; step < 10; ++step) EXPECT_LT(distance(data_->batch(step), -1), same) << step;
  }
  const auto model = load_dit(reference("training.lit.model")).model;
  const Tensor x = data_->batch(0).x0, noisier = data_->batch(1).x0, y = Tensor::from<int64_t>({0, 1, 2});
  const Tensor early = Tensor::full({3}, 10), late = Tensor::full({3}, 11);
  EXPECT_GT(test::relative_error(model->forward(x, late, y), model->forward(x, early, y)), 1e-4)
      << "one timestep more or less would show";
  EXPECT_GT(test::relative_error(model->forward(noisier, early, y), model->forward(x, early, y)), 1e-2)
      << "another picture would show";
}

TEST_F(Distillation, TheTeachersWeightsAreConvertedAndPackedOnce) {
  Trainer trainer(config_, *data_);
  const auto teacher = load("training.distilled.teacher");
  trainer.learn_from(teacher);
  const Batch batch = data_->batch(0);
  const double before = trainer.gather_gradients(batch).noise_distance;
  // Only the packed copies are left of what its layers weigh.
  for (auto& [name, parameter] : nn::learned_parameters(*teacher))
    if (!name.starts_with("y_embedder.")) parameter->value = Tensor::zeros(parameter->shape);
  EXPECT_EQ(trainer.gather_gradients(batch).noise_distance, before);
}

TEST_F(Distillation, TheTeachersPrecisionIsASettingOfItsOwn) {
  std::map<std::string, DType> types{{"auto", ops::fastest_product_dtype()}, {"int8", DType::i8}};
  for (const DType dtype : test::product_dtypes()) types.emplace(name_of(dtype), dtype);
  for (const auto& [name, dtype] : types) {
    config_.distil.precision = name;
    Trainer trainer(config_, *data_);
    const auto teacher = load("training.softmax.model");
    trainer.learn_from(teacher);
    EXPECT_EQ(teacher->product_dtype(), dtype) << name;
    EXPECT_EQ(trainer.model().product_dtype(), DType::f32);
  }
}

TEST_F(Distillation, WithoutATeacherItIsPlainTrainingAgain) {
  Trainer trainer(config_, *data_);
  trainer.learn_from(load("training.softmax.model"));
  trainer.learn_from(nullptr);
  const StepMetrics m = trainer.gather_gradients(data_->batch(0));
  EXPECT_EQ(m.noise_distance, 0);
  EXPECT_NEAR(m.loss, m.mse + m.bound, 1e-5 * m.loss);
}

}  // namespace
}  // namespace linnet
