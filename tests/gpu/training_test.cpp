// A run on the GPU against the same run on the CPU: losses, weights, and a checkpoint that goes from one to the
// other.
#include "train/trainer.h"

#include "gpu/support.h"
#include "ops/gpu_kernels.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using ops::test::relative_error;
using ops::test::the_gpu;
using ops::test::values_of;

/// Whether the parts of the table that training needs are all there.
bool can_train() {
  const ops::GpuKernels& kernels = ops::gpu_kernels();
  return kernels.product.matmul && kernels.arrange.to_patches && kernels.arrange.gather_rows &&
         kernels.reduce.sum_rows && kernels.linear_attention.forward && kernels.loss.diffusion;
}

#define LINNET_NEED_TRAINING() \
  LINNET_NEED_GPU();           \
  if (!can_train()) GTEST_SKIP() << "not run: kernels that training needs are not written yet"

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

TrainConfig config_on(const std::string& device, const std::string& more = "") {
  return parse_train_config(
      fmt::format(
          "[train]\nsteps = 10\nbatch = 4\nlr = 1e-3\nema = 0.9\nclip = 1.0\nprecision = 'f32'\n"
          "device = '{}'\n{}[model]\ninput_size = 8\npatch_size = 2\nin_channels = 3\nhidden_size = 32\n"
          "depth = 2\nnum_heads = 2\nnum_classes = 3\nmixer = 'lit'",
          device, more),
      {});
}

void expect_alike(const std::string& more) {
  SCOPED_TRACE(more);
  const RandomData data;
  Trainer here(config_on("cpu", more), data), there(config_on("cuda", more), data);
  for (int64_t step = 0; step < 10; ++step) {
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

TEST(GpuTraining, TenStepsAgreeWithTheCpu) {
  LINNET_NEED_TRAINING();
  expect_alike("");
  expect_alike("accumulate = 2\ncheckpointing = true\n");
  expect_alike("optimizer = 'came'\n");
  expect_alike("optimizer = 'muon'\n");
}

TEST(GpuTraining, ACheckpointGoesFromOneDeviceToTheOther) {
  LINNET_NEED_TRAINING();
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
