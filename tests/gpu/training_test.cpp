// A run on the GPU against the same run on the CPU: losses, weights, and a checkpoint that goes from one to the
// other.
#include "train/trainer.h"

#include "gpu/support.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using ops::test::relative_error;
using ops::test::the_gpu;
using ops::test::values_of;

class RandomData : public BatchSource {
 public:
  Batch batch(int64_t step) const override {
    Generator generator(static_cast<uint64_t>(step) + 100);
    Batch batch;
    batch.x0 = generator.normal({4, 3, 8, 8});
    batch.noise = generator.normal({4, 3, 8, 8});
    batch.t = Tensor::from(std::vector<int64_t>{0, 10 + step, 500, 999});
    batch.y = Tensor::from(std::vector<int64_t>{0, 1, 2, 3});
    return batch;
  }
};

// Of a model of texts whose encoder is trained along.
class RandomTexts : public RandomData {
 public:
  Batch batch(int64_t step) const override {
    Batch batch = RandomData::batch(step);
    batch.y = {};
    batch.ids = {{3, 4, 5, 1}, {1}, {7, 3, 6, 2, 9, 1}, {4 + step, 3, 1}};
    return batch;
  }
};

// `model` says what is trained, `more` says more about [train].
TrainConfig config_of(std::string_view model, const std::string& device, const std::string& more) {
  return parse_train_config(fmt::format(R"(
[data]
path = 'none'
{}
[distil]
precision = 'f32'
[train]
steps = 10
batch = 4
lr = 1e-3
ema = 0.9
clip = 1.0
precision = 'f32'
device = '{}'
{}
)",
                                        model, device, more),
                            {});
}

TrainConfig config_on(const std::string& device, const std::string& more = "") {
  return config_of(R"(
[model]
input_size = 8
patch_size = 2
in_channels = 3
hidden_size = 32
depth = 2
num_heads = 2
num_classes = 3
mixer = 'lit'
)",
                   device, more);
}

TrainConfig config_of_texts_on(const std::string& device) {
  return config_of(R"(
[model]
kind = 'pixart'
sample_size = 8
patch_size = 2
in_channels = 3
hidden_size = 32
depth = 2
num_heads = 2
num_cross_heads = 2
caption_channels = 32
caption_tokens = 8
learn_sigma = false
mixer = 'lit'
[text]
tokenizer = ')" LINNET_TEST_DATA R"(/tokenizer/spiece.model'
heads = 2
hidden = 32
)",
                   device, "");
}

void expect_alike(int64_t steps, const BatchSource& data, Trainer& here, Trainer& there) {
  for (int64_t step = 0; step < steps; ++step) {
    const StepMetrics expected = here.step(data.batch(step)), actual = there.step(data.batch(step));
    EXPECT_NEAR(actual.loss, expected.loss, 1e-3 * expected.loss) << step;
    EXPECT_NEAR(actual.gradient_norm, expected.gradient_norm, 1e-2 * expected.gradient_norm) << step;
  }
  const auto expected = nn::learned_parameters(here.averaged()),
             actual = nn::learned_parameters(there.averaged());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(actual[i].second->value.on_gpu()) << expected[i].first;
    EXPECT_LT(relative_error(actual[i].second->value.host(), values_of(expected[i].second->value)), 2e-2)
        << expected[i].first;
  }
}

void expect_alike(int64_t steps, const std::string& more) {
  SCOPED_TRACE(more);
  const RandomData data;
  Trainer here(config_on("cpu", more), data), there(config_on("cuda", more), data);
  expect_alike(steps, data, here, there);
}

TEST(GpuTraining, TenStepsAgreeWithTheCpu) {
  LINNET_NEED_GPU();
  expect_alike(10, "");
}

TEST(GpuTraining, OtherWaysToTrainAgreeWithTheCpu) {
  LINNET_NEED_GPU();
  expect_alike(3, "accumulate = 2\ncheckpointing = true");
  expect_alike(3, "optimizer = 'came'");
  expect_alike(3, "optimizer = 'muon'");
}

TEST(GpuTraining, ATextEncoderIsTrainedAlong) {
  LINNET_NEED_GPU();
  const RandomTexts data;
  Trainer here(config_of_texts_on("cpu"), data), there(config_of_texts_on("cuda"), data);
  expect_alike(5, data, here, there);
}

TEST(GpuTraining, ATeacherTeachesOnTheDeviceOfTheRun) {
  LINNET_NEED_GPU();
  const RandomData data;
  const auto losses_on = [&](const std::string& device) {
    Trainer trainer(config_on(device), data);
    auto teacher = make_trainee(config_on("cpu"));
    nn::initialize(*teacher, 7);
    teacher->visit("", [](const std::string&, nn::Parameter& p) {  // what is drawn as zero would teach nothing
      if (p.learned() && p.init.kind == nn::Init::Kind::zero)
        p.value = ops::test::random(p.shape, 8, DType::f32, 0.1f);
    });
    trainer.learn_from(std::move(teacher));
    std::vector<double> losses;
    for (int64_t step = 0; step < 3; ++step) {
      const StepMetrics m = trainer.step(data.batch(step));
      losses.insert(losses.end(), {m.loss, m.noise_distance, m.variance_distance});
    }
    return losses;
  };
  EXPECT_LT(relative_error(losses_on("cuda"), losses_on("cpu")), 1e-3);
}

TEST(GpuTraining, ACheckpointGoesFromOneDeviceToTheOther) {
  LINNET_NEED_GPU();
  const TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  const RandomData data;
  Trainer here(config_on("cpu"), data), there(config_on("cuda"), data);
  for (int64_t step = 0; step < 3; ++step) there.step(data.batch(step));
  there.save_checkpoint(path);
  here.load_checkpoint(path);
  EXPECT_EQ(here.steps_done(), 3);
  const auto expected = nn::learned_parameters(there.model()), actual = nn::learned_parameters(here.model());
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(ops::test::same_bytes(expected[i].second->value.host(), actual[i].second->value));
  here.save_checkpoint(path);
  there.load_checkpoint(path);
  EXPECT_NEAR(there.step(data.batch(3)).loss, here.step(data.batch(3)).loss, 1e-3);
}

}  // namespace
}  // namespace linnet
