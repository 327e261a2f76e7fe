// linnet train, encode and eval with --device cuda.
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/gpu.h"
#include "cli/small_model.h"
#include "support/processor.h"
#include "support/sanitizers.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

class GpuTrain : public GpuCommand {
 protected:
  void SetUp() override {
    GpuCommand::SetUp();
    if (IsSkipped()) return;
    // None of whose weights is zero, so that all of them matter from the first step on.
    write_small_model(folder_ / "small", small_config(), false);
    std::ofstream(folder_ / "classes.toml") << "[data]\npath = '../shapes'\n" << usual << "init = '../small'\n";
    std::ofstream(folder_ / "texts.toml")
        << "[model]\nkind = 'pixart'\nsample_size = 16\npatch_size = 4\nin_channels = 3\nhidden_size = 16\n"
           "depth = 1\nnum_heads = 2\nnum_cross_heads = 2\ncaption_channels = 24\ncaption_tokens = 20\n"
           "null_caption = false\n[data]\npath = '../scenes'\n[text]\ntokenizer = '"
        << data_file("tokenizer/spiece.model") << "'\n"
        << usual;
    make_pictures("shapes", "64");
    make_pictures("scenes", "8");
  }
  void make_pictures(const std::string& kind, const std::string& count) const {
    ASSERT_TRUE(succeeded(run({"data", kind, kind, "--count", count, "--size", "16"}, {folder_.path()})));
  }
  Result train(const std::string& device, const Arguments& arguments) const {
    return on(device, with({"train"}, arguments));
  }
  std::vector<nlohmann::json> logged(const std::string& device) const {
    std::vector<nlohmann::json> all;
    for (const std::string& line : lines(contents(folder_ / device / "run/metrics.jsonl")))
      all.push_back(nlohmann::json::parse(line));
    return all;
  }
  // Both devices log the same terms of the loss, which are not nothing.
  void expect_alike(const Arguments& arguments, const std::vector<std::string>& terms) const {
    for (const char* device : {"cpu", "cuda"}) {
      const Result result = train(device, arguments);
      ASSERT_EQ(result.code, 0) << result.err;
    }
    const auto expected = logged("cpu"), actual = logged("cuda");
    ASSERT_GT(expected.size(), 0u);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i)
      for (const std::string& term : terms) {
        const auto wanted = expected[i].at(term).get<double>();
        EXPECT_GT(wanted, 0) << term;
        EXPECT_NEAR(actual[i].at(term).get<double>(), wanted, 1e-3 * wanted) << term << ", step " << i + 1;
      }
  }

  static constexpr const char* usual =
      "[output]\ndir = 'run'\nlog_every = 1\n[train]\nsteps = 3\nbatch = 2\nlr = 1e-3\nprecision = 'f32'\n";
  const Arguments with_sheet_ = {"output.sample_every=3", "output.sample_steps=2"};
  const Arguments with_samples_ = with(with_sheet_, {"output.sample_prompts=[\"a red star\", \"a moon\"]"});
  const std::vector<std::string> usual_terms_ = {"loss", "mse", "bound", "gradient_norm"};
};

TEST_F(GpuTrain, ClassesAreLearnedAndShown) {
  expect_alike(with({"../classes.toml"}, with_sheet_), usual_terms_);
  EXPECT_LE(furthest("run/samples/step-0000003.png"), 1);
  ASSERT_TRUE(succeeded(run({"info", "run/model.safetensors"}, {folder_ / "cuda"})));
}

TEST_F(GpuTrain, AResumedRunIsTheUninterruptedOneBitForBit) {
  ASSERT_EQ(train("cuda", {"../classes.toml"}).code, 0);
  const std::string whole = bytes("run/checkpoint.safetensors");
  fs::remove_all(folder_ / "cuda/run");
  ASSERT_EQ(train("cuda", {"../classes.toml", "train.steps=1"}).code, 0);
  ASSERT_EQ(train("cuda", {"../classes.toml", "--resume"}).code, 0);
  EXPECT_EQ(bytes("run/checkpoint.safetensors"), whole);
}

TEST_F(GpuTrain, ARunGoesOnOnTheOtherDevice) {
  ASSERT_EQ(train("cuda", {"../classes.toml", "train.steps=1"}).code, 0);
  fs::copy(folder_ / "cuda/run", folder_ / "cpu/run");
  const Result result = train("cpu", {"../classes.toml", "--resume"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("train.device was 'cuda', is now 'cpu'"), std::string::npos) << result.out;
  ASSERT_EQ(train("cuda", {"../classes.toml", "--resume"}).code, 0);
  EXPECT_NEAR(logged("cuda").back().at("loss").get<double>(), logged("cpu").back().at("loss").get<double>(),
              1e-3);
}

TEST_F(GpuTrain, TextsAreLearnedAndShown) {
  copy_model("t5", folder_ / "t5", "model.safetensors");
  for (const char* encoder : {"text.encoder=../t5", "text.heads=2"}) {  // frozen, and trained along
    SCOPED_TRACE(encoder);
    expect_alike(with({"../texts.toml", encoder}, with_samples_), usual_terms_);
    EXPECT_LE(furthest("run/samples/step-0000003.png"), 1);
    for (const char* device : {"cpu", "cuda"}) fs::remove_all(folder_ / device / "run");
  }
}

TEST_F(GpuTrain, ATeacherOfClassesTeaches) {
  std::ofstream(folder_ / "distil.toml")
      << "[data]\nreplay = '" << data_file("reference/training.lit.safetensors")
      << "'\n[distil]\nprecision = 'f32'\n"
      << usual;
  expect_alike(
      {"../distil.toml", "train.batch=3", "--init", data_file("reference/training.lit.model.safetensors"),
       "--teacher", data_file("reference/training.distilled.teacher.safetensors")},
      {"loss", "mse", "bound", "noise_distance", "variance_distance"});
}

// Of which the student inherits all but the attention.
TEST_F(GpuTrain, ATeacherOfTextsTeaches) {
  copy_model("pixart_pipeline", folder_ / "teacher", "diffusion_pytorch_model.safetensors");
  copy_model("t5", folder_ / "t5", "model.safetensors");
  copy_model("vae_plain", folder_ / "vae", "diffusion_pytorch_model.safetensors");
  ASSERT_TRUE(
      succeeded(run({"encode", "scenes", "--captions", "--vae", "vae", "--text-encoder", "t5", "--tokenizer",
                     data_file("tokenizer/spiece.model"), "--size", "32", "-o", "encoded"},
                    {folder_.path()})));
  ASSERT_TRUE(succeeded(run({"inherit", "--from", "teacher", "-o", "lit.safetensors"}, {folder_.path()})));
  std::ofstream(folder_ / "distil.toml")
      << "[model]\nkind = 'pixart'\n[data]\npath = '../encoded'\n[distil]\nprecision = 'f32'\n"
      << usual;
  expect_alike({"../distil.toml", "--init", "../lit.safetensors", "--teacher", "../teacher"},
               {"loss", "mse", "noise_distance"});
}

TEST_F(GpuTrain, WhatCannotTrainIsNamedAndLeavesNothing) {
  const auto refused = [&](const Arguments& more, int code, const std::string& sentence) {
    EXPECT_TRUE(failed(run_in(folder_ / "cuda", with({"train", "../classes.toml"}, more)), code, sentence));
  };
  refused({"--device", "cuda:1"}, 1, "the only GPU of this machine is cuda:0");
  refused({"train.device=cuda:1"}, 1, "the only GPU of this machine is cuda:0");
  refused({"--device", "gpu"}, 2, "a device is cpu, cuda or cuda:1 and so on");
  refused({"--device", "cuda", "train.precision=f16"}, 2, "train.precision is");
  EXPECT_TRUE(listing(folder_ / "cuda").empty());
}

class GpuEncode : public GpuCommand {
 protected:
  void SetUp() override {
    GpuCommand::SetUp();
    if (IsSkipped()) return;
    copy_text_model(folder_ / "model");
    ASSERT_TRUE(succeeded(run({"data", "scenes", "scenes", "--count", "3", "--size", "16"}, {folder_.path()})));
    fs::create_directories(folder_ / "classes");
    fs::copy(folder_ / "scenes", folder_ / "classes/one");
  }
  static Arguments encode(const Arguments& more) {
    return with({"encode", "--vae", "../model/vae", "--size", "16", "--stored", "f32", "-o", "l"}, more);
  }
  const Arguments captions_ = {"../scenes",   "--captions",        "--text-encoder", "../model/text_encoder",
                               "--tokenizer", "../model/tokenizer"};
  const std::string shard_ = "l/latents-00000-of-00001.safetensors";
};

TEST_F(GpuEncode, LatentsAndStatesAreThoseOfTheCpu) {
  const std::pair<Arguments, std::vector<std::string>> rows[] = {
      {captions_, {"mean", "text.states", "text.none"}},
      {{"../classes", "--flip"}, {"mean", "logvar", "flipped.mean"}}};
  // Without instructions for bf16 the CPU's text encoder is in f32 beside it.
  const double in_bf16 = ops::fastest_product_dtype() == DType::bf16 ? 3e-2 : 6e-2;
  for (const std::string& dtype : product_names())
    for (const auto& [pictures, names] : rows) {
      SCOPED_TRACE(dtype + pictures[0]);
      for (const char* device : {"cpu", "cuda"}) {
        fs::remove_all(folder_ / device / "l");
        ASSERT_TRUE(succeeded(on(device, with(encode(pictures), {"--dtype", dtype}))));
      }
      for (const std::string& name : names)
        EXPECT_LT(difference(shard_, name), dtype == "f32" ? 1e-4 : in_bf16) << name;
    }
}

// Which are no others' than those of products in f32.
TEST_F(GpuEncode, ShardsOfProductsInTf32AreNotGoneOnWithInF32) {
  for (const Arguments& pictures : {captions_, Arguments{"../classes"}}) {
    fs::remove_all(folder_ / "cuda/l");
    const Arguments wanted = encode(with(pictures, {"--dtype"}));
    ASSERT_TRUE(succeeded(on_gpu(with(wanted, {"tf32"}))));
    EXPECT_TRUE(succeeded(on_gpu(with(wanted, {"tf32"}))));
    EXPECT_TRUE(failed(on_gpu(with(wanted, {"f32"})), 1, "choose another folder"));
  }
}

TEST_F(GpuEncode, WrongUsesAreRefused) {
  EXPECT_TRUE(failed(on_gpu(encode(with(captions_, {"--dtype", "int8"}))), 2, "8 bits"));
  EXPECT_TRUE(failed(run_in(folder_ / "cuda", encode(with(captions_, {"--device", "cuda:1"}))), 1,
                     "the only GPU of this machine is cuda:0"));
  EXPECT_TRUE(listing(folder_ / "cuda").empty());
}

class GpuEval : public GpuCommand {
 protected:
  void make_pictures(const char* seed, const char* count) const {
    ASSERT_TRUE(succeeded(
        run({"data", "scenes", std::string("s") + seed, "--count", count, "--size", "16", "--seed", seed},
            {folder_.path()})));
  }
  nlohmann::json figures(const std::string& device, const Arguments& options) const {
    EXPECT_TRUE(succeeded(on(device, with({"eval", "../s1", "--json", "figures"}, options))));
    return nlohmann::json::parse(contents(folder_ / device / "figures"));
  }
  static void expect_alike(const nlohmann::json& actual, const nlohmann::json& expected,
                           const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const auto wanted = expected.at(name).get<double>();
      EXPECT_GT(wanted, 0) << name;
      EXPECT_NEAR(actual.at(name).get<double>(), wanted, 1e-3 * wanted) << name;
    }
  }
};

TEST_F(GpuEval, FeaturesAreThoseOfTheCpu) {
  for (const char* seed : {"1", "2"}) make_pictures(seed, "12");
  fs::create_directories(folder_ / "classes");
  fs::copy(folder_ / "s1", folder_ / "classes/one");
  fs::copy(folder_ / "s2", folder_ / "classes/other");
  ASSERT_EQ(run({"eval", "train-classifier", "classes", "-o", "c", "--size", "16", "--width", "8", "--depth",
                 "1", "--steps", "5"},
                {folder_.path()})
                .code,
            0);
  const Arguments compare = {"../s2", "--features", "../c"};
  expect_alike(figures("cuda", compare), figures("cpu", compare), {"frechet_distance"});
}

TEST_F(GpuEval, InceptionSeesWhatItSeesOnTheCpu) {
  if (with_address_sanitizer) GTEST_SKIP() << "minutes, for operations that tests of their own run, too";
  for (const char* seed : {"1", "2"}) make_pictures(seed, "4");  // the fewest
  write_inception(folder_ / "inception");
  const Arguments inception = {"--inception", "../inception"};
  const auto expected = figures("cpu", with({"../s2", "--save-statistics", "../seen"}, inception));
  // The reference was seen by the CPU, as the emulated GPU takes seconds for a picture.
  expect_alike(figures("cuda", with({"../seen"}, inception)), expected, {"fid", "sfid", "inception_score"});
}

}  // namespace
}  // namespace linnet::test
