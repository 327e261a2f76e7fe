// A run on the GPU against the same run on the CPU: losses, weights, and a checkpoint that goes from one to the
// other.
#include "gpu/training.h"

#include "support/processor.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using ops::test::relative_error;
using ops::test::the_gpu;
using test::config_of;
using test::DrawnTrainer;
using test::expect_alike;
using test::RandomData;
using test::Ways;

TrainConfig config_on(const std::string& device, const Ways& ways = {}) {
  return config_of(R"(
[model]
input_size = 8
patch_size = 2
in_channels = 3
hidden_size = 32
depth = 2
num_heads = 2
num_classes = 3
)",
                   device, ways);
}

void expect_alike(int64_t steps, const Ways& ways) {
  SCOPED_TRACE(fmt::format("{} {} {}", ways.mixer, ways.precision, ways.more));
  const RandomData data;
  DrawnTrainer here(config_on("cpu", ways), data), there(config_on("cuda", ways), data);
  expect_alike(steps, data, here, there, ways.precision);
}

TEST(GpuTraining, TenStepsAgreeWithTheCpu) {
  LINNET_NEED_GPU();
  expect_alike(10, {});
}

TEST(GpuTraining, OtherWaysToTrainAgreeWithTheCpu) {
  LINNET_NEED_GPU();
  for (const char* more : {"accumulate = 2\ncheckpointing = true", "optimizer = 'came'", "optimizer = 'muon'"})
    expect_alike(3, {more});
}

TEST(GpuTraining, EveryMixerAgreesWithTheCpu) {
  LINNET_NEED_GPU();
  for (const char* mixer : {"softmax", "linear", "focused", "focused_gelu"})
    expect_alike(2, {"", "f32", mixer});
}

TEST(GpuTraining, EveryMixerAgreesWithTheCpuInBf16) {
  LINNET_NEED_GPU();
  LINNET_NEED_BF16_PRODUCTS();
  for (const char* mixer : {"softmax", "linear", "lit", "focused"}) {
    expect_alike(2, {"", "bf16", mixer});
    expect_alike(2, {"checkpointing = true", "bf16", mixer});
  }
}

TEST(GpuTraining, ATeacherTeachesOnTheDeviceOfTheRun) {
  LINNET_NEED_GPU();
  const RandomData data;
  const auto losses_on = [&](const std::string& device) {
    Trainer trainer(config_on(device), data);
    trainer.learn_from(test::teacher_for(config_on("cpu")));
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
  DrawnTrainer here(config_on("cpu"), data), there(config_on("cuda"), data);
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
