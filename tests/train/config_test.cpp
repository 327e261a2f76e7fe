#include "train/config.h"

#include <gtest/gtest.h>

#include <fstream>

#include "store/dit_file.h"
#include "store/pixart_file.h"
#include "support/temporary_folder.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

constexpr const char* minimal = "[data]\npath = 'pictures'\n[model]\npreset = 'LiT-S/2'\n";

std::string refusal(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  try {
    parse_train_config(toml, overrides);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TrainConfig, TakesAPresetAndWhatTheFileChangesInIt) {
  const TrainConfig config = parse_train_config(std::string(minimal) + "depth = 3\n", {});
  EXPECT_EQ(config.of_classes().hidden_size, 384);
  EXPECT_EQ(config.of_classes().num_heads, 2);
  EXPECT_EQ(config.of_classes().mixer, nn::Mixer::lit);
  EXPECT_EQ(config.of_classes().depth, 3);
}

TEST(TrainConfig, OverridesBeatTheFile) {
  const TrainConfig config =
      parse_train_config(minimal, {"train.lr=2e-4", "train.steps=7", "data.path=other/place",
                                   "model.mixer=linear", "model.prediction=v", "data.flip=true"});
  EXPECT_DOUBLE_EQ(config.train.lr, 2e-4);
  EXPECT_EQ(config.train.steps, 7);
  EXPECT_EQ(config.data.path, "other/place");
  EXPECT_EQ(config.of_classes().mixer, nn::Mixer::linear);
  EXPECT_EQ(config.of_classes().prediction, Prediction::v);
  EXPECT_TRUE(config.data.flip);
}

TEST(TrainConfig, TheWrittenConfigurationGivesTheSameRun) {
  const TrainConfig first = parse_train_config(minimal, {"train.lr=2e-4", "train.ema=0.5"});
  const TrainConfig again = parse_train_config(first.toml, {});
  EXPECT_EQ(again.of_classes(), first.of_classes());
  EXPECT_DOUBLE_EQ(again.train.lr, first.train.lr);
  EXPECT_DOUBLE_EQ(again.train.ema, first.train.ema);
}

TEST(TrainConfig, SuggestsTheSettingThatWasMeant) {
  EXPECT_NE(refusal(minimal, {"train.step=5"}).find("did you mean \"steps\""), std::string::npos);
  EXPECT_NE(refusal(minimal, {"trian.steps=5"}).find("did you mean \"train\""), std::string::npos);
  EXPECT_NE(refusal(minimal, {"model.mixer=lot"}).find("softmax, linear, lit"), std::string::npos);
  EXPECT_NE(refusal(minimal, {"model.prediction=y"}).find("\"epsilon\", \"v\" or \"x0\""), std::string::npos);
}

TEST(TrainConfig, RefusesWhatCannotBe) {
  EXPECT_NE(refusal(minimal, {"train.steps=many"}), "accepted");
  EXPECT_NE(refusal(minimal, {"train.steps=1.5"}), "accepted");
  EXPECT_NE(refusal(minimal, {"train.lr=nan"}), "accepted");
  EXPECT_NE(refusal(minimal, {"train.lr=-1"}), "accepted");
  EXPECT_NE(refusal(minimal, {"train.batch=10", "train.accumulate=3"}), "accepted");
  EXPECT_NE(refusal(minimal, {"model.num_heads=5"}), "accepted");
  EXPECT_NE(refusal(minimal, {"model.depth=100000000"}), "accepted");
  EXPECT_NE(refusal(minimal, {"nonsense"}), "accepted");
  EXPECT_NE(refusal(minimal, {"distil.noise=-1"}), "accepted");
  EXPECT_NE(refusal(minimal, {"distil.precision=f16"})
                .find("distil.precision is \"auto\", \"f32\", \"bf16\" or \"int8\""),
            std::string::npos);
  EXPECT_NE(refusal(minimal, {"train.device=gpu"}).find("a device is cpu, cuda or cuda:1"), std::string::npos);
  EXPECT_EQ(refusal(minimal, {"train.device=cuda:1"}), "accepted") << "the file may be for another machine";
  EXPECT_NE(refusal("[model\n"), "accepted");
  EXPECT_NE(refusal("[model]\npreset='LiT-S/2'\n"), "accepted") << "no data";
}

TEST(TrainConfig, ARefusalSaysWhatWouldBePossible) {
  const auto says = [](const std::string& setting, const std::string& sentence) {
    EXPECT_NE(refusal(minimal, {setting}).find(sentence), std::string::npos) << refusal(minimal, {setting});
  };
  says("train.threads=2000", "train.threads must lie in 0..1024, not 2000");
  says("train.warmup=-1", "train.warmup must be at least 0, not -1");
  says("train.lr=0", "train.lr must be above 0 and below 10, not 0");
  says("train.epsilon=0", "train.epsilon must be above 0, not 0");
  says("train.clip=-1", "train.clip must be at least 0, not -1");
  for (const char* share :
       {"train.ema", "train.beta1", "train.momentum", "model.class_dropout", "text.dropout"})
    says(fmt::format("{}=1", share), fmt::format("{} must be at least 0 and below 1, not 1",
                                                 std::string(share).substr(share[0] == 'm' ? 6 : 0)));
}

// f32, in which steps compute, would make these 1, 0 or infinite, and then the weights no numbers.
TEST(TrainConfig, WhatHasNoPlaceInF32IsRefused) {
  for (const char* setting : {"train.beta1=0.99999999", "train.beta2=0.99999999", "train.ema=0.99999999999",
                              "train.epsilon=1e-300", "train.epsilon=1e300", "train.weight_decay=1e300"})
    EXPECT_NE(refusal(minimal, {setting}).find(" must be "), std::string::npos) << setting;
}

TEST(TrainConfig, WhatTheRunWouldIgnoreIsRefused) {
  EXPECT_NE(refusal(minimal, {"data.path=", "data.replay=r", "data.flip=true"}).find("data.flip mirrors"),
            std::string::npos);
  for (const char* setting : {"text.tokenizer=t", "text.tune=true", "output.sample_prompts=[\"a red star\"]"})
    EXPECT_NE(refusal(minimal, {"text.encoder=", setting}), "accepted") << setting;
  EXPECT_NE(refusal(minimal, {"text.tokenizer=t"}).find("this one is of classes"), std::string::npos);
}

constexpr const char* minimal_of_texts =
    "[data]\npath = 'pictures'\n[model]\nkind = 'pixart'\nsample_size = 16\nin_channels = 3\n"
    "caption_tokens = 20\n[text]\ntokenizer = 't'\n";

TEST(TrainConfig, ASettingThatDoesNothingBesideAnotherIsRefused) {
  const auto refused = [](const char* toml, const std::vector<std::string>& settings, const std::string& why) {
    const std::string sentence = refusal(toml, settings);
    EXPECT_NE(sentence.find("nothing would come of " + settings.back().substr(0, settings.back().find('='))),
              std::string::npos)
        << sentence;
    EXPECT_NE(sentence.find(why), std::string::npos) << sentence;
  };
  refused(minimal, {"train.momentum=0.9"}, "train.optimizer is not \"muon\"");
  refused(minimal, {"train.beta3=0.9"}, "train.optimizer is not \"came\"");
  refused(minimal, {"train.optimizer=came", "train.epsilon=1e-6"}, "train.optimizer is \"came\"");
  for (const char* setting : {"train.timesteps_mean=1", "train.timesteps_deviation=2"})
    refused(minimal, {setting},
            "as train.timesteps is \"uniform\": set train.timesteps=\"logit_normal\", or leave");
  for (const char* setting : {"distil.noise=1", "distil.variance=1", "distil.precision=f32"})
    refused(minimal, {setting}, "there is no distil.teacher: name one (--teacher)");
  refused(minimal, {"distil.teacher=t", "model.learn_sigma=false", "distil.variance=1"},
          "predicts no variance");
  for (const char* setting : {"text.dropout=0.2", "text.depth=3"})
    refused(minimal, {setting}, "the model is one of classes");
  for (const char* setting : {"text.depth=3", "text.heads=2", "text.hidden=64"}) {
    refused(minimal_of_texts, {"text.encoder=t5", setting}, "an encoder that has its size");
    refused(minimal_of_texts, {"text.encoder=t5", "text.tune=true", setting}, "an encoder that has its size");
    refused(minimal_of_texts, {"text.tokenizer=", setting}, "without text.tokenizer");
    EXPECT_EQ(refusal(minimal_of_texts, {setting}), "accepted");
  }
  refused(minimal_of_texts, {"output.sample_every=5"}, "give output.sample_prompts");
  refused(minimal_of_texts, {"output.sample_prompts=[\"a red star\"]"}, "output.sample_every is 0");
  EXPECT_EQ(refusal(minimal_of_texts, {"output.sample_every=5", "output.sample_prompts=[\"a red star\"]"}),
            "accepted");
  EXPECT_EQ(refusal(minimal, {"output.sample_every=5"}), "accepted");
}

TEST(TrainConfig, SoAreThoseOfAFileTogether) {
  EXPECT_EQ(refusal(std::string(minimal) + "[train]\noptimizer = 'muon'\nbeta3 = 0.9\ntimesteps_mean = 1\n"),
            "configuration: nothing would come of train.beta3, as train.optimizer is not \"came\": set "
            "train.optimizer=\"came\", or leave it out");
  EXPECT_NE(refusal(std::string(minimal_of_texts) + "encoder = 't5'\ndepth = 2\nheads = 2\n")
                .find("nothing would come of text.depth, text.heads, as"),
            std::string::npos);
}

// As a file may be that of several runs.
TEST(TrainConfig, WhatTheCommandLineMakesIdleInAFileIsRemarkedOnAndNotWritten) {
  const std::string toml = std::string(minimal) + "[train]\ntimesteps = 'logit_normal'\ntimesteps_mean = 1.0\n";
  EXPECT_TRUE(parse_train_config(toml, {}).remarks.empty());
  const TrainConfig config = parse_train_config(toml, {"train.timesteps=uniform"});
  EXPECT_EQ(config.remarks,
            std::vector<std::string>{"nothing comes of train.timesteps_mean, as train.timesteps "
                                     "is \"uniform\""});
  EXPECT_TRUE(parse_train_config(config.toml, {}).remarks.empty());
}

// `linnet train --preset NAME --print` writes such.
TEST(TrainConfig, WeightsOfDistillationMayWaitInAFileForATeacher) {
  const std::string toml = std::string(minimal) + "[distil]\nnoise = 1.0\n";
  const TrainConfig config = parse_train_config(toml, {});
  EXPECT_EQ(config.remarks,
            std::vector<std::string>{"nothing comes of distil.noise, as there is no distil.teacher"});
  const TrainConfig again = parse_train_config(config.toml, {"distil.teacher=t"});
  EXPECT_DOUBLE_EQ(again.distil.noise, 1);
  EXPECT_TRUE(again.remarks.empty());
}

TEST(TrainConfig, ARunThatHasBegunGoesOnWithWhatDoesNothing) {
  const ConfigSource source{.preset = "dit-s-2-imagenet256",
                            .file = {},
                            .overrides = {"data.path=x", "train.momentum=0.9"},
                            .resume = true};
  EXPECT_EQ(read_train_config(source).remarks.size(), 1u);
}

TEST(TrainConfig, ATextOnTheCommandLineMayLookLikeANumberOrADate) {
  const TrainConfig config =
      parse_train_config(minimal, {"data.path=2024", "output.dir=2024-01-01", "train.init=", "train.seed=7"});
  EXPECT_EQ(config.data.path, "2024");
  EXPECT_EQ(config.output.dir, "2024-01-01");
  EXPECT_EQ(config.train.seed, 7);
  EXPECT_EQ(parse_train_config(config.toml, {}).data.path, "2024");
  EXPECT_EQ(parse_train_config(minimal, {"data.path=\"12\""}).data.path, "12");
  EXPECT_NE(refusal("[data]\npath = 2024\n").find("data.path must be a text"), std::string::npos);
}

TEST(TrainConfig, ASettingOnTheCommandLineIsOneLine) {
  for (const char* setting : {"output.dir=a\nb", "train.lr=1e-3\n# more", "train.seed=1\r\ntrain.steps=5"})
    EXPECT_NE(refusal(minimal, {setting}).find("a setting holds no line breaks"), std::string::npos);
}

// Or the checkpoint, which repeats them, could not be written.
TEST(TrainConfig, SettingsAreUtf8) {
  EXPECT_EQ(refusal(minimal, {"output.dir=runs/\xff"}), "\"output.dir=runs/\\xff\" is not UTF-8");
}

TEST(TrainConfig, WhatSheetsCannotBePaintedWithIsRefusedBeforeTraining) {
  for (const char* steps : {"0", "-1", "1001", "5000"})
    EXPECT_NE(refusal(minimal, {std::string("output.sample_steps=") + steps})
                  .find("output.sample_steps must lie in 1..1000"),
              std::string::npos);
  EXPECT_EQ(refusal(minimal, {"output.sample_steps=1000"}), "accepted");
  EXPECT_NE(refusal(minimal, {"output.sample_cfg=1e300"}).find("output.sample_cfg must lie in"),
            std::string::npos);
}

TEST(TrainConfig, AFileLiesOverAPreset) {
  const TemporaryFolder folder;
  std::ofstream(folder / "own.toml")
      << "[data]\npath = 'pictures'\n[train]\nbatch = 32\n[model]\ninput_size = 64\n";
  const TrainConfig config = read_train_config(
      {.preset = "lit-xl-2-imagenet256", .file = folder / "own.toml", .overrides = {"train.steps=5"}});
  EXPECT_EQ(config.train.batch, 32);
  EXPECT_EQ(config.train.steps, 5);
  EXPECT_EQ(config.of_classes().input_size, 64);
  EXPECT_EQ(config.of_classes().depth, 28);
  EXPECT_EQ(config.data.path, "pictures");
}

// Weights to start from, of a model that no default describes.
class WithInit : public testing::Test {
 protected:
  WithInit() {
    DiT model(config_);
    nn::initialize(model, 1);
    save_dit(folder_ / "init.safetensors", model, DType::f32);
  }
  std::string toml(const std::string& model = "") const {
    return fmt::format("[data]\npath = 'pictures'\n[train]\ninit = '{}'\n{}",
                       (folder_ / "init.safetensors").string(), model);
  }

  TemporaryFolder folder_;
  const DiTConfig config_ = test::tiny_dit();
};

TEST_F(WithInit, TheModelIsThatOfTheFile) {
  const TrainConfig config = parse_train_config(toml(), {});
  EXPECT_EQ(config.of_classes(), config_);
  EXPECT_EQ(parse_train_config(config.toml, {}).of_classes(), config_);
}

TEST_F(WithInit, WhatIsSaidMustAgree) {
  EXPECT_EQ(parse_train_config(toml("[model]\nhidden_size = 16\ndepth = 1\n"), {}).of_classes(), config_);
  EXPECT_NE(refusal(toml("[model]\ndepth = 2\n")).find("model.depth is 2, but 1 in "), std::string::npos);
  EXPECT_NE(refusal(toml("[model]\nmixer = 'lit'\n")).find("model.mixer is \"lit\", but \"softmax\" in "),
            std::string::npos);
  EXPECT_NE(refusal(toml("[model]\npreset = 'LiT-S/2'\n")).find("model.hidden_size is 384, but 16 in "),
            std::string::npos);
}

TEST_F(WithInit, OfOtherHeadsItSaysHowToAgree) {
  const std::string said = refusal(toml("[model]\nnum_heads = 1\n"));
  EXPECT_NE(said.find("model.num_heads is 1, but 2 in "), std::string::npos) << said;
  EXPECT_NE(said.find("set model.num_heads=2, or make it anew with linnet inherit --heads 1"),
            std::string::npos)
      << said;
}

TEST_F(WithInit, HowOftenClassesAreDroppedMayChangeButNotWhetherTheyAre) {
  EXPECT_DOUBLE_EQ(parse_train_config(toml("[model]\nclass_dropout = 0.3\n"), {}).of_classes().class_dropout,
                   0.3);
  EXPECT_NE(refusal(toml("[model]\nclass_dropout = 0.0\n")).find("model.class_dropout is 0.0, but 0.1 in "),
            std::string::npos);
}

bool has_null_caption(const std::vector<std::string>& settings) {
  return parse_train_config("[data]\npath = 'latents'\n", settings).of_texts().null_caption;
}

// Its weights would stay as they were drawn: a dropped text's states are those of "".
TEST(TrainConfig, ANewModelOfTextsHasNoEmbeddingOfNoTextUnlessToldSo) {
  EXPECT_FALSE(has_null_caption({"model.kind=pixart"}));
  EXPECT_FALSE(has_null_caption({"model.preset=LiT-T2I-XL/2"}));
  EXPECT_FALSE(has_null_caption({"model.preset=LiT-T2I-XL/2", "model.kind=pixart"}));
  EXPECT_TRUE(has_null_caption({"model.preset=LiT-T2I-XL/2", "model.null_caption=true"}));
}

TEST(TrainConfig, AModelThatStartsFromWeightsKeepsTheirEmbeddingOfNoText) {
  const TemporaryFolder folder;
  const std::string file = folder / "start.safetensors";
  for (const bool there : {false, true}) {
    PixArtConfig config;
    config.sample_size = 8;
    config.hidden_size = 16;
    config.depth = 1;
    config.num_heads = config.num_cross_heads = 2;
    config.null_caption = there;
    PixArt model(config);
    nn::initialize(model, 1);
    save_pixart(file, model, DType::f32);
    EXPECT_EQ(has_null_caption({"train.init=" + file}), there);
    EXPECT_EQ(has_null_caption({"train.init=" + file, "model.preset=PixArt-XL/2", "model.hidden_size=16",
                                "model.depth=1", "model.num_heads=2", "model.num_cross_heads=2"}),
              there);
  }
}

TEST(TrainConfig, KnowsTheTeacherOfAWrittenConfiguration) {
  EXPECT_EQ(teacher_of(parse_train_config(minimal, {"distil.teacher=DiT.pt"}).toml), "DiT.pt");
  EXPECT_EQ(teacher_of(parse_train_config(minimal, {}).toml), "");
}

TEST(LearningRate, WarmsUpThenStaysOrFalls) {
  OptimizerConfig config;
  config.lr = 1.0;
  config.warmup = 10;
  config.steps = 110;
  EXPECT_DOUBLE_EQ(learning_rate(config, 0), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(config, 9), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 109), 1.0);
  config.schedule = "cosine";
  EXPECT_DOUBLE_EQ(learning_rate(config, 10), 1.0);
  EXPECT_NEAR(learning_rate(config, 60), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate(config, 110), 0.0, 1e-12);
}

}  // namespace
}  // namespace linnet
