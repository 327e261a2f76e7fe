// Presets: each is a configuration that works, with the papers' numbers.
#include "train/presets.h"

#include <gtest/gtest.h>

#include "train/config.h"

namespace linnet {
namespace {

TrainConfig config_of(std::string_view name, std::vector<std::string> overrides = {}) {
  overrides.emplace_back("data.replay=latents.safetensors");
  return read_train_config({.preset = std::string(name), .file = {}, .overrides = overrides});
}

TEST(Presets, AreConfigurationsOfTheModelsTheyName) {
  for (const Preset& preset : presets()) {
    DiTConfig model = dit_preset(preset.model);
    model.input_size = preset.pixels / 8;
    EXPECT_EQ(config_of(preset.name).model, model) << preset.name;
  }
}

TEST(Presets, FollowDiTsRecipe) {
  for (const Preset& preset : presets()) {
    const TrainConfig config = config_of(preset.name);
    EXPECT_DOUBLE_EQ(config.train.lr, 1e-4) << preset.name;
    EXPECT_DOUBLE_EQ(config.train.weight_decay, 0) << preset.name;
    EXPECT_DOUBLE_EQ(config.train.ema, 0.9999) << preset.name;
    EXPECT_DOUBLE_EQ(config.model.class_dropout, 0.1) << preset.name;
    EXPECT_EQ(config.train.schedule, "constant") << preset.name;
    EXPECT_TRUE(config.distil.teacher.empty()) << preset.name;
  }
}

TEST(Presets, OfLiTXLHaveThePapersNumbers) {
  const TrainConfig small = config_of("lit-xl-2-imagenet256"), large = config_of("lit-xl-2-imagenet512");
  EXPECT_EQ(small.train.steps, 1'400'000);
  EXPECT_EQ(small.train.batch, 256);
  EXPECT_DOUBLE_EQ(small.distil.noise, 0.5);
  EXPECT_DOUBLE_EQ(small.distil.variance, 0.05);
  EXPECT_EQ(large.train.steps, 700'000);
  EXPECT_EQ(large.train.batch, 128);
  EXPECT_DOUBLE_EQ(large.distil.noise, 1.0);
  EXPECT_DOUBLE_EQ(large.distil.variance, 0.05);
  EXPECT_EQ(large.model.num_heads, 4);
  EXPECT_EQ(large.model.input_size, 64);
}

TEST(Presets, AreOverriddenSettingBySetting) {
  const TrainConfig config = config_of("lit-s-2-imagenet256", {"train.steps=7", "model.depth=3"});
  EXPECT_EQ(config.train.steps, 7);
  EXPECT_EQ(config.train.batch, 256);
  EXPECT_EQ(config.model.depth, 3);
  EXPECT_EQ(config.model.hidden_size, 384);
}

TEST(Presets, AMistypedOneIsCorrected) {
  const auto refusal = [](std::string_view name) -> std::string {
    try {
      find_preset(name);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_NE(refusal("lit-xl2-imagenet256").find("did you mean \"lit-xl-2-imagenet256\"?"), std::string::npos);
  EXPECT_NE(refusal("pixart").find("known: lit-s-2-imagenet256, "), std::string::npos);
}

}  // namespace
}  // namespace linnet
