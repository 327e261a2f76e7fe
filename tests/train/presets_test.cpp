// Presets: each is a configuration that works, with the papers' numbers.
#include "train/presets.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "train/config.h"

namespace linnet {
namespace {

TrainConfig config_of(std::string_view name, std::vector<std::string> overrides = {}) {
  overrides.emplace_back("data.path=latents");
  return read_train_config({.preset = std::string(name), .file = {}, .overrides = overrides});
}

TEST(Presets, AreConfigurationsOfTheModelsTheyName) {
  for (const Preset& preset : presets()) {
    ModelConfig model = model_preset(preset.model);
    if (auto* classes = std::get_if<DiTConfig>(&model)) classes->input_size = preset.pixels / 8;
    if (auto* texts = std::get_if<PixArtConfig>(&model)) {
      texts->sample_size = preset.pixels / 8;
      texts->interpolation = static_cast<double>(preset.pixels) / 512;
      texts->null_caption = false;  // which training would not teach
    }
    EXPECT_TRUE(config_of(preset.name).model == model) << preset.name;
  }
}

TEST(Presets, OfClassesFollowDiTsRecipe) {
  for (const Preset& preset : presets()) {
    if (preset.of_texts) continue;
    const TrainConfig config = config_of(preset.name);
    EXPECT_DOUBLE_EQ(config.train.lr, 1e-4) << preset.name;
    EXPECT_DOUBLE_EQ(config.train.weight_decay, 0) << preset.name;
    EXPECT_DOUBLE_EQ(config.train.ema, 0.9999) << preset.name;
    EXPECT_DOUBLE_EQ(config.of_classes().class_dropout, 0.1) << preset.name;
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
  EXPECT_EQ(large.of_classes().num_heads, 4);
  EXPECT_EQ(large.of_classes().input_size, 64);
}

TEST(Presets, OfTextsHaveTheRecipeOfLiTsTextToImageModel) {
  for (const char* name : {"lit-xl-2-t2i-512", "lit-xl-2-t2i-1024"}) {
    const TrainConfig config = config_of(name);
    EXPECT_EQ(config.train.optimizer, "came") << name;
    EXPECT_DOUBLE_EQ(config.train.lr, 2e-5) << name;
    EXPECT_EQ(config.train.steps, 45'400) << name;
    EXPECT_EQ(config.train.warmup, 1000) << name;
    EXPECT_DOUBLE_EQ(config.train.clip, 0.01) << name;
    EXPECT_DOUBLE_EQ(config.text.dropout, 0.1) << name;
    EXPECT_DOUBLE_EQ(config.distil.noise, 1.0) << name;
    EXPECT_DOUBLE_EQ(config.distil.variance, 0.05) << name;
    EXPECT_EQ(config.of_texts().mixer, nn::Mixer::lit) << name;
    EXPECT_EQ(config.of_texts().num_heads, 2) << name;
    EXPECT_EQ(config.of_texts().caption_tokens, 300) << name;
  }
}

TEST(Presets, AreOverriddenSettingBySetting) {
  const TrainConfig config = config_of("lit-s-2-imagenet256", {"train.steps=7", "model.depth=3"});
  EXPECT_EQ(config.train.steps, 7);
  EXPECT_EQ(config.train.batch, 256);
  EXPECT_EQ(config.of_classes().depth, 3);
  EXPECT_EQ(config.of_classes().hidden_size, 384);
}

// Its weights of distillation wait for a teacher, which not every run has.
TEST(Presets, SayNothingThatIsRemarkedOn) {
  for (const Preset& preset : presets()) EXPECT_TRUE(config_of(preset.name).remarks.empty()) << preset.name;
}

TEST(Configurations, ThatComeWithLinnetSayNothingInVain) {
  const std::filesystem::path root = LINNET_TEST_DATA "/../..";
  std::vector<std::filesystem::path> files = {root / "experiments/base.toml"};
  for (const auto& entry : std::filesystem::directory_iterator(root / "configs")) files.push_back(entry.path());
  EXPECT_GT(files.size(), 4u);
  for (const std::filesystem::path& file : files) {
    // The weights that those of texts start from are not there before a run.
    const bool of_texts = file.filename().string().starts_with("scenes");
    const std::string init = of_texts ? "builtin-text" : "";
    const TrainConfig config =
        read_train_config({.preset = "", .file = file, .overrides = {"train.init=" + init}});
    EXPECT_TRUE(config.remarks.empty()) << file << ": " << config.remarks.front();
    EXPECT_EQ(is_of_texts(config.model), of_texts) << file;
  }
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
