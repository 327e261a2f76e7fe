// Ten training steps against PyTorch's on the same weights, pictures, noise, timesteps and classes.
#include <gtest/gtest.h>

#include "io/safetensors.h"
#include "store/dit_file.h"
#include "support/compare.h"
#include "support/processor.h"
#include "train/trainer.h"

namespace linnet {
namespace {

using test::relative_error;

class TrainingReference : public testing::TestWithParam<const char*> {
 protected:
  std::string dumps_path() const {
    return fmt::format("{}/reference/training.{}.safetensors", LINNET_TEST_DATA, GetParam());
  }
  TrainConfig config(const std::string& precision) const {
    const DiTConfig model = read_dit_config(Weights::open(model_path()));
    return parse_train_config(
        fmt::format(
            "[data]\nreplay = '{}'\n[train]\nsteps = 10\nbatch = 3\nlr = 1e-3\nema = 0.9\nprecision = '{}'\n"
            "[model]\ninput_size={}\npatch_size={}\nin_channels={}\nhidden_size={}\ndepth={}\nnum_heads={}\n"
            "num_classes={}\nmixer='{}'",
            dumps_path(), precision, model.input_size, model.patch_size, model.in_channels, model.hidden_size,
            model.depth, model.num_heads, model.num_classes, nn::name_of(model.mixer)),
        {});
  }
  std::string model_path() const {
    return fmt::format("{}/reference/training.{}.model.safetensors", LINNET_TEST_DATA, GetParam());
  }

  // The key's bias has no effect on softmax (a constant cancels), so its gradient is rounding noise that Adam
  // enlarges.
  static Tensor without_noise(const std::string& name, const Tensor& value) {
    if (!name.ends_with("attn.qkv.bias")) return value;
    Tensor copy = value.clone();
    const int64_t third = value.numel() / 3;
    std::fill_n(copy.mutable_data<float>() + third, third, 0.0f);
    return copy;
  }
};

TEST_P(TrainingReference, TenStepsAgree) {
  const TrainConfig c = config("f32");
  const auto dumps = SafetensorsFile::open(dumps_path());
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  trainer.start_from(*load_trainee(model_path(), c.model));
  for (int64_t i = 0; i < 10; ++i) {
    const StepMetrics m = trainer.step(data->batch(i));
    EXPECT_NEAR(m.loss, dumps.tensor("loss").data<float>()[i], 1e-4 * std::abs(m.loss)) << "step " << i;
    EXPECT_NEAR(m.mse, dumps.tensor("mse").data<float>()[i], 1e-4 * m.mse) << "step " << i;
    EXPECT_NEAR(m.bound, dumps.tensor("vb").data<float>()[i], 1e-4 * std::abs(m.bound) + 1e-6) << "step " << i;
  }
  for (const auto& [name, parameter] : nn::learned_parameters(trainer.model()))
    EXPECT_LT(relative_error(without_noise(name, parameter->value),
                             without_noise(name, dumps.tensor("final." + name))),
              1e-4)
        << name;
  for (const auto& [name, parameter] : nn::learned_parameters(trainer.averaged()))
    EXPECT_LT(
        relative_error(without_noise(name, parameter->value), without_noise(name, dumps.tensor("ema." + name))),
        1e-4)
        << name;
}

TEST_P(TrainingReference, CheckpointingAndAccumulationChangeNothingButTheOrderOfSums) {
  TrainConfig c = config("f32");
  c.train.checkpointing = true;
  c.train.accumulate = 3;
  const auto dumps = SafetensorsFile::open(dumps_path());
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  trainer.start_from(*load_trainee(model_path(), c.model));
  for (int64_t i = 0; i < 10; ++i) {
    const double loss = trainer.step(data->batch(i)).loss;
    EXPECT_NEAR(loss, dumps.tensor("loss").data<float>()[i], 2e-4 * loss) << "step " << i;
  }
}

TEST_P(TrainingReference, Bf16ProductsStayClose) {
  LINNET_NEED_BF16_PRODUCTS();
  const TrainConfig c = config("bf16");
  const auto dumps = SafetensorsFile::open(dumps_path());
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  trainer.start_from(*load_trainee(model_path(), c.model));
  for (int64_t i = 0; i < 10; ++i) {
    const double loss = trainer.step(data->batch(i)).loss;
    EXPECT_NEAR(loss, dumps.tensor("loss").data<float>()[i], 2e-2 * loss) << "step " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Mixers, TrainingReference, testing::Values("lit", "softmax"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace linnet
