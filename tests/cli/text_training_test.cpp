// The way of somebody with pictures and texts: encode both, train on them, distil, and paint.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

class TextTrainingCommand : public testing::Test {
 protected:
  TextTrainingCommand() {
    copy_model("vae_plain", folder_ / "vae", "diffusion_pytorch_model.safetensors");
    copy_model("t5", folder_ / "t5", "model.safetensors");
    EXPECT_TRUE(succeeded(linnet({"data", "scenes", "scenes", "--count", "40", "--size", "32"})));
  }
  Result linnet(const Arguments& arguments) const { return run(arguments, {folder_.path()}); }
  Result encode(const Arguments& more) const {
    Arguments all = {"encode",         "scenes", "--captions",  "--vae", "vae",
                     "--text-encoder", "t5",     "--tokenizer", spiece_};
    all.insert(all.end(), more.begin(), more.end());
    return linnet(all);
  }
  // Of latents, unless settings say otherwise.
  Result train(const Arguments& more) const {
    std::ofstream(folder_ / "tiny.toml")
        << "[model]\nkind = \"pixart\"\nsample_size = 8\npatch_size = 2\nhidden_size = 16\ndepth = "
           "1\nnum_heads = 2\n"
           "num_cross_heads = 2\ncaption_channels = 24\ncaption_tokens = 20\nnull_caption = false\n"
           "[train]\nbatch = 8\nsteps = 3\n[output]\ndir = \"run\"\n";
    Arguments all = {"train", "tiny.toml"};
    all.insert(all.end(), more.begin(), more.end());
    return linnet(all);
  }

  TemporaryFolder folder_;
  const std::string spiece_ = data_file("tokenizer/spiece.model");
};

TEST_F(TextTrainingCommand, CachedLatentsAndTextsTrainAModelThatPaints) {
  const Result encoded = encode({"--size", "32", "--shard", "15", "-o", "latents"});
  ASSERT_TRUE(succeeded(encoded));
  EXPECT_NE(encoded.out.find("40 pictures with texts, 3 shards"), std::string::npos) << encoded.out;
  EXPECT_NE(encoded.out.find("40 pictures in 3 shards, 3 of them new, 0 left out: latents"), std::string::npos);
  ASSERT_EQ(train({"data.path=latents", "train.optimizer=came"}).code, 0);
  ASSERT_TRUE(succeeded(
      linnet({"generate", "a red star", "-m", "run/model.safetensors", "--text-encoder", "t5", "--tokenizer",
              spiece_, "--vae", "vae", "--size", "32x32", "--steps", "2", "-o", "p.png"})));
  EXPECT_EQ(read_image(folder_ / "p.png").width, 32);
}

TEST_F(TextTrainingCommand, PicturesOfManyShapesKeepThemInBuckets) {
  fs::create_directories(folder_ / "mixed");
  std::ofstream lines(folder_ / "mixed/captions.jsonl");
  for (int i = 0; i < 6; ++i) {
    Image image;
    image.width = i % 2 == 0 ? 40 : 20;
    image.height = 20;
    image.rgb.assign(static_cast<size_t>(image.width * image.height * 3), static_cast<uint8_t>(40 * i));
    write_image(folder_ / fmt::format("mixed/{}.png", i), image);
    lines << fmt::format("{{\"file\": \"{}.png\", \"caption\": \"grey number {}\"}}\n", i, i);
  }
  lines << "\n";
  lines.close();
  ASSERT_TRUE(succeeded(linnet({"encode", "mixed", "--captions", "--vae", "vae", "--text-encoder", "t5",
                                "--tokenizer", spiece_, "--size", "256", "--buckets", "-o", "latents"})));
  const auto shard = SafetensorsFile::open(folder_ / "latents/latents-00000-of-00001.safetensors");
  EXPECT_EQ(shard.entry("mean").shape, (Shape{3, 4, 44, 88}));  // eighths of the bin 176 x 352
  EXPECT_EQ(shard.entry("mean.1").shape, (Shape{3, 4, 64, 64}));
  EXPECT_TRUE(failed(linnet({"train", "--preset", "lit-s-2-imagenet256", "data.path=latents"}), 1,
                     "have texts, not classes: set model.kind=pixart"));
  EXPECT_EQ(train({"data.path=latents", "train.batch=3"}).code, 0);
}

// Led away from no text, as guidance does unless it is told otherwise.
TEST_F(TextTrainingCommand, ASheetIsWhatGeneratePaintsOfItsTexts) {
  const Result result = train({"data.path=scenes", "text.tokenizer=" + spiece_, "text.heads=2",
                               "model.in_channels=3", "model.sample_size=32", "model.patch_size=8",
                               "train.lr=1e-2", "train.ema=0", "train.precision=f32", "output.sample_every=3",
                               "output.sample_steps=2", "output.sample_prompts=[\"a red star\", \"a moon\"]"});
  ASSERT_EQ(result.code, 0) << result.err;
  const auto painted = [&](const std::string& negative) {
    Arguments all = {"generate", "a red star", "a moon", "-m", "run/model.safetensors", "--negative", negative};
    all.insert(all.end(), {"--text-encoder", "run/text_encoder", "--tokenizer", spiece_, "--dtype", "f32"});
    all.insert(all.end(), {"--sampler", "ddim", "--steps", "2", "--cfg", "2", "--cfg-interval", "0:999"});
    all.insert(all.end(), {"--seed", "0", "--batch", "2", "--grid", "--columns", "8", "-o", "p.png"});
    EXPECT_TRUE(succeeded(linnet(all)));
    return read_image(folder_ / "p.png");
  };
  const auto unlike = [sheet = read_image(folder_ / "run/samples/step-0000003.png")](const Image& other) {
    int largest = sheet.rgb.size() == other.rgb.size() ? 0 : 256;
    for (size_t i = 0; i < std::min(sheet.rgb.size(), other.rgb.size()); ++i)
      largest = std::max(largest, std::abs(sheet.rgb[i] - other.rgb[i]));
    return largest;
  };
  EXPECT_LE(unlike(painted("")), 1);
  EXPECT_GT(unlike(painted("a red star")), 1);
}

TEST_F(TextTrainingCommand, ATextEncoderTrainedAlongIsFrozenForDistillation) {
  const Arguments pixels = {"data.path=scenes",      "text.tokenizer=" + spiece_,
                            "model.in_channels=3",   "model.sample_size=32",
                            "model.patch_size=8",    "output.sample_every=3",
                            "output.sample_steps=2", "output.sample_prompts=[\"a red star\", \"a moon\"]"};
  Arguments first = pixels;
  first.insert(first.end(), {"text.heads=2", "output.dir=teacher"});
  const Result taught = train(first);
  ASSERT_EQ(taught.code, 0) << taught.err;
  EXPECT_NE(taught.out.find("a text encoder is trained along"), std::string::npos) << taught.out;
  EXPECT_TRUE(fs::exists(folder_ / "teacher/samples/step-0000003.png"));
  // Encoded texts are kept by names that say which encoder made them.
  const auto encoded_with = [&](const std::string& weights, const std::string& encoder) {
    fs::remove_all(folder_ / "cache");
    EXPECT_TRUE(succeeded(linnet({"generate", "a red star", "-m", "teacher/checkpoint.safetensors", "--weights",
                                  weights, "--text-encoder", "teacher/" + encoder, "--tokenizer", spiece_,
                                  "--steps", "2", "--cache", "cache", "-o", "p.png"})));
    return listing(folder_ / "cache");
  };
  const auto average = encoded_with("raw", "text_encoder");
  EXPECT_EQ(encoded_with("ema", "checkpoint.safetensors"), average);
  EXPECT_NE(encoded_with("raw", "checkpoint.safetensors"), average);

  // So it is in one folder: of a checkpoint, the chosen weights are its own text encoder's, too.
  const auto bundled = [&](const std::string& model, const std::string& weights) {
    fs::remove_all(folder_ / "bundle");
    EXPECT_TRUE(succeeded(linnet({"quantize", "teacher/" + model, "--weights", weights, "--parts", "teacher",
                                  "-o", "bundle", "--text-encoder-dtype", "f32"})));
    return contents(folder_ / "bundle/text_encoder/model.safetensors");
  };
  const std::string bundled_average = bundled("model.safetensors", "ema");
  EXPECT_EQ(bundled("checkpoint.safetensors", "ema"), bundled_average);
  EXPECT_NE(bundled("checkpoint.safetensors", "raw"), bundled_average);
  fs::remove_all(folder_ / "bundle");

  ASSERT_TRUE(succeeded(linnet({"inherit", "--from", "teacher/model.safetensors", "--mixer", "lit", "--heads",
                                "2", "-o", "lit.safetensors"})));
  Arguments second = pixels;
  second.insert(second.end(),
                {"train.steps=2", "text.encoder=teacher/text_encoder", "model.mixer=lit", "--init",
                 "lit.safetensors", "--teacher", "teacher/model.safetensors", "output.dir=student"});
  const Result distilled = train(second);
  ASSERT_EQ(distilled.code, 0) << distilled.err;
  EXPECT_NE(distilled.out.find("learns from teacher/model.safetensors"), std::string::npos) << distilled.out;
  EXPECT_FALSE(fs::exists(folder_ / "student/text_encoder"));
  second.insert(second.end(), {"train.steps=3", "--resume"});
  ASSERT_EQ(train(second).code, 0);
  EXPECT_TRUE(fs::exists(folder_ / "student/samples/step-0000003.png"));

  ASSERT_TRUE(succeeded(linnet({"quantize", "student/model.safetensors", "--parts", "teacher", "-o", "bundle",
                                "--text-encoder-dtype", "bf16"})));
  EXPECT_FALSE(fs::exists(folder_ / "bundle/vae"));
  ASSERT_TRUE(succeeded(linnet({"generate", "a red star", "-m", "bundle", "--steps", "2", "-o", "p.png"})));
  EXPECT_EQ(read_image(folder_ / "p.png").width, 32);
}

// Of pixels late guidance leads edges and colours astray.
TEST_F(TextTrainingCommand, ASheetIsGuidedWhenPicturesOfTextsUsuallyAre) {
  const Result trained =
      train({"data.path=scenes", "text.tokenizer=" + spiece_, "text.heads=2", "model.in_channels=3",
             "model.sample_size=32", "model.patch_size=8", "train.lr=0.01", "train.steps=20", "train.ema=0.5",
             "train.precision=f32", "output.sample_every=20", "output.sample_steps=4", "output.sample_cfg=6.0",
             "output.sample_prompts=[\"a red star\"]"});
  ASSERT_EQ(trained.code, 0) << trained.err;
  const Image sheet = read_image(folder_ / "run/samples/step-0000020.png");
  const auto furthest_from_sheet = [&](const Arguments& more) {
    Arguments all = {"generate", "a red star", "-m", "run/model.safetensors", "--tokenizer", spiece_};
    std::istringstream alike(
        "--text-encoder run/text_encoder --sampler ddim --steps 4 --cfg 6 --cfg-channels 3 --dtype f32 "
        "--seed 0 --grid -o p.png");
    all.insert(all.end(), std::istream_iterator<std::string>(alike), {});
    all.insert(all.end(), more.begin(), more.end());
    EXPECT_TRUE(succeeded(linnet(all)));
    const Image picture = read_image(folder_ / "p.png");
    EXPECT_EQ(picture.rgb.size(), sheet.rgb.size());
    int furthest = 0;
    for (size_t i = 0; i < std::min(picture.rgb.size(), sheet.rgb.size()); ++i)
      furthest = std::max(furthest, std::abs(picture.rgb[i] - sheet.rgb[i]));
    return furthest;
  };
  EXPECT_LE(furthest_from_sheet({}), 1);
  EXPECT_GT(furthest_from_sheet({"--cfg-interval", "0:999"}), 1);
}

TEST_F(TextTrainingCommand, WrongUsesAreRefused) {
  const auto refused = [](const Result& result, int code, const char* part) {
    EXPECT_EQ(result.code, code);
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  };
  refused(linnet({"encode", "scenes", "--captions", "--vae", "vae", "-o", "l"}), 2, "needs --text-encoder");
  refused(encode({"--size", "32", "--buckets", "-o", "l"}), 2, "there are ratios for pictures of 256");
  refused(encode({"--size", "32", "--cleaning", "hard", "-o", "l"}), 2, "lower or strip");
  EXPECT_FALSE(fs::exists(folder_ / "l"));
  ASSERT_TRUE(succeeded(encode({"--size", "32", "-o", "l"})));
  refused(encode({"--size", "32", "--text-tokens", "5", "-o", "l"}), 1, "choose another folder");
  refused(train({"data.path=l", "model.kind=vae"}), 2, "model.kind is");
  refused(train({"data.path=l", "model.caption_channels=32"}), 1, "24 wide, the model takes 32");
  refused(train({"data.path=l", "train.optimizer=sgd"}), 2, "\"came\" or \"muon\"");
}

}  // namespace
}  // namespace linnet::test
