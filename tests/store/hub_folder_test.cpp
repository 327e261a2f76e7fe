// Folders as the Hub lays them out, with what people have made of them.
#include "store/hub_folder.h"

#include <fstream>

#include "models/vae.h"
#include "store/dit_file.h"
#include "store/folder_config.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;
using test::refusal;

constexpr const char* file = "diffusion_pytorch_model.safetensors";

class HubFolder : public testing::Test {
 protected:
  HubFolder() {
    fs::copy(std::string(LINNET_TEST_DATA) + "/checkpoints/diffusers", folder_.path(),
             fs::copy_options::recursive);
  }
  static DiTConfig config_of(const fs::path& path) {
    return read_dit_config(find_dit_weights(Weights::open(path)));
  }
  void write(const fs::path& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  fs::path transformer() const { return folder_ / "transformer"; }

  TemporaryFolder folder_;
};

TEST_F(HubFolder, AFileNamedItselfIsWhatItIsInItsFolder) {
  write("transformer/config.json", R"({"sample_size": 16, "num_attention_heads": 4, "patch_size": null})");
  EXPECT_EQ(config_of(transformer()).input_size, 16);
  EXPECT_EQ(config_of(transformer() / file).input_size, 16);
  fs::rename(transformer() / file, transformer() / "other.safetensors");
  EXPECT_NE(config_of(transformer() / "other.safetensors").input_size, 16);
}

TEST_F(HubFolder, ThePipelineIsFoundHoweverItsPartIsNamed) {
  write("model_index.json", "{}");
  write("scheduler/scheduler_config.json",
        R"({"prediction_type": "v_prediction", "lambda_min_clipped": -Infinity, "beta_end": 0.02})");
  for (const fs::path& path : {transformer(), transformer() / ".", folder_ / "transformer/../transformer/",
                               transformer() / file, folder_.path()})
    EXPECT_EQ(config_of(path).prediction, Prediction::v) << path;
}

TEST_F(HubFolder, ASchedulerWithoutSamplerIsRefused) {
  write("model_index.json", "{}");
  const auto refused = [&](const char* scheduler, const char* why) {
    write("scheduler/scheduler_config.json", scheduler);
    EXPECT_NE(refusal([&] { config_of(folder_.path()); }).find(why), std::string::npos) << scheduler;
  };
  refused(R"({"_class_name": "LCMScheduler"})", "made for LCMScheduler, for which Linnet has no sampler");
  refused(R"({"prediction_type": "flow"})", "takes the prediction \"flow\"");
  refused(R"({"beta_schedule": "scaled_linear"})", "another noise schedule");
  refused(R"({"beta_start": 0.00085})", "another noise schedule");
  refused(R"({"trained_betas": [0.1, 0.2]})", "another noise schedule");
  refused(R"({"rescale_betas_zero_snr": true})", "another noise schedule");
  refused("[1", "no JSON object");
}

TEST_F(HubFolder, WhatOfASchedulerIsNotFollowedIsSaid) {
  write("model_index.json", "{}");
  const auto note = [&](const char* scheduler) {
    write("scheduler/scheduler_config.json", scheduler);
    return note_on_scheduler(Weights::open(folder_.path()));
  };
  EXPECT_EQ(note(R"({"timestep_spacing": "linspace", "solver_order": 2, "use_karras_sigmas": false,
                     "lambda_min_clipped": -Infinity, "final_sigmas_type": null, "euler_at_final": true})"),
            "");
  EXPECT_EQ(note(R"({"use_karras_sigmas": true, "timestep_spacing": "trailing", "solver_order": 3})"),
            "asks for solver_order 3, timestep_spacing \"trailing\", use_karras_sigmas, which is not followed");
  EXPECT_EQ(note(R"({"solver_type": [[1]]})"), "asks for solver_type of its own, which is not followed");
  EXPECT_EQ(note("[1"), "");
  fs::remove_all(folder_ / "scheduler");
  EXPECT_EQ(note_on_scheduler(Weights::open(folder_.path())), "");
}

TEST_F(HubFolder, AConfigThatCannotBeIsRefused) {
  const auto refused = [&](const char* config, const char* why) {
    write("transformer/config.json", config);
    EXPECT_NE(refusal([&] { config_of(transformer()); }).find(why), std::string::npos) << config;
  };
  refused("{", "config.json is no JSON object");
  refused(R"({"sample_size": [32, 32]})", "sample_size is no number");
  refused(R"({"sample_size": 32.5})", "sample_size is no whole number");
  refused(R"({"activation_fn": "gelu"})", "activation_fn is \"gelu\", and only \"gelu-approximate\" is known");
  write("transformer/config.json", R"({"sample_size": 16.0})");
  EXPECT_EQ(config_of(transformer()).input_size, 16);
}

// Names are a stranger's: a sentence about one stays a line.
TEST(Configurations, ANameThatIsNotKnownIsShownAsOneLine) {
  const auto shown = [](const std::string& sentence) {
    EXPECT_NE(sentence, "accepted");
    EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
    return sentence.find("a\\nb") != std::string::npos;
  };
  const std::string dit = to_json(DiTConfig{});
  const auto with = [&](const char* key, const char* value) {
    auto json = nlohmann::json::parse(dit);
    json[key] = value;
    return refusal([&] { dit_config_from_json(json.dump()); });
  };
  for (const char* key : {"mixer", "prediction", "model"}) EXPECT_TRUE(shown(with(key, "a\nb"))) << key;
  for (const char* vae : {R"({"act_fn": "a\nb"})", R"({"up_block_types": ["a\nb"]})"})
    EXPECT_TRUE(shown(refusal([&] { vae_config_from_json(vae); }))) << vae;
}

TEST_F(HubFolder, NumbersThatJsonHasNotAreNoneButInTexts) {
  write("model_index.json", "{}");
  write("scheduler/scheduler_config.json",
        R"({"a": [NaN, Infinity], "prediction_type": "-Infinity \" NaN", "beta_end":-Infinity})");
  EXPECT_NE(refusal([&] { config_of(folder_.path()); }).find(R"(the prediction "-Infinity " NaN")"),
            std::string::npos);
}

// None is gone through by recursion, for which the stack would not do.
TEST_F(HubFolder, LongAndDeepJsonIsReadOrRefused) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  write("model_index.json", "{}");
  write("scheduler/scheduler_config.json", R"({"a":)" + std::string(500'000, ' ') + "1}");
  EXPECT_EQ(config_of(folder_.path()).prediction, Prediction::epsilon);
  write("scheduler/scheduler_config.json", fmt::format(R"({{"prediction_type": {}}})", nested(400'000)));
  EXPECT_EQ(config_of(folder_.path()).prediction, Prediction::epsilon);
  write("transformer/config.json", fmt::format(R"({{"activation_fn": {}}})", nested(400'000)));
  EXPECT_NE(refusal([&] { config_of(transformer()); }).find("activation_fn is of type array, and only"),
            std::string::npos);
}

TEST_F(HubFolder, AVariantIsTakenIfThereIsNoOther) {
  const auto call = [&](const char* from, const char* to) {
    fs::rename(transformer() / from, transformer() / to);
  };
  call(file, "diffusion_pytorch_model.fp16.safetensors");
  EXPECT_EQ(config_of(transformer()).hidden_size, 32);
  fs::copy(transformer() / "diffusion_pytorch_model.fp16.safetensors",
           transformer() / "diffusion_pytorch_model.non_ema.safetensors");
  EXPECT_NE(refusal([&] { weights_in(transformer()); }).find("several variants"), std::string::npos);
  EXPECT_EQ(config_of(transformer() / "diffusion_pytorch_model.non_ema.safetensors").hidden_size, 32);
  write("transformer/diffusion_pytorch_model.bin.index.json", "{}");
  EXPECT_EQ(weights_in(transformer()).filename(), "diffusion_pytorch_model.bin.index.json");
  // Shards are no variants.
  write("shards/model.fp16-00001-of-00002.safetensors", "");
  write("shards/model.safetensors.index.fp16.json", "{}");
  EXPECT_EQ(weights_in(folder_ / "shards").filename(), "model.safetensors.index.fp16.json");
}

TEST_F(HubFolder, WhatIsNoFileOfWeightsIsNamed) {
  const auto refused = [&](const char* name, const char* contents, const char* why) {
    write(name, contents);
    EXPECT_NE(refusal([&] { Weights::open(folder_ / name); }).find(why), std::string::npos) << name;
  };
  refused("a.safetensors", "version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS");
  refused("a.pt", "<!DOCTYPE html><html>", "a web page");
  refused("a.gguf", "GGUF\3", "a GGUF file");
  refused("config.json", "{}", "name the folder that it lies in");
  // Of a folder fetched in part, the index may be there and its shards not.
  write("text_encoder/model.safetensors.index.json", R"({"weight_map": {"w": "model-1.safetensors"}})");
  refused("text_encoder/model-1.safetensors", "version https://git-lfs.github.com/spec/v1\noid", "Git LFS");
  EXPECT_NE(
      refusal([&] { Weights::open(folder_ / "text_encoder"); }).find("model-1.safetensors: this is a pointer"),
      std::string::npos);
}

}  // namespace
}  // namespace linnet
