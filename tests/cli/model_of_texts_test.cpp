// What becomes of a text-to-image model besides pictures: a folder in 8 bits, a linear student, one file,
// words.
#include <sys/resource.h>

#include <cmath>
#include <fstream>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

double mean_difference(const Image& a, const Image& b) {
  double sum = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(a.rgb[i] - b.rgb[i]);
  return sum / static_cast<double>(a.rgb.size());
}

class ModelOfTexts : public testing::Test {
 protected:
  ModelOfTexts() { copy_text_model(folder_ / "model"); }
  Result generate(const Arguments& more) const {
    Arguments all = {"generate", "--model", "model", "--steps", "3", "--seed", "5"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_.path()});
  }
  std::string bytes(const std::string& name) const { return contents(folder_ / name); }

  TemporaryFolder folder_;
};

TEST_F(ModelOfTexts, ABundleIsSmallAndPaintsNearlyTheSame) {
  ASSERT_TRUE(succeeded(generate({"two red stars", "-o", "a.png"})));
  for (const std::string type : {"bf16", "int8", "f32"}) {
    const Result result = run({"quantize", "model", "-o", "b-" + type, "--transformer-dtype", type,
                               "--text-encoder-dtype", type == "f32" ? "f32" : "int8"},
                              {folder_.path()});
    ASSERT_TRUE(succeeded(result));
    EXPECT_FALSE(fs::exists(folder_ / ("b-" + type + ".partial")));
    const auto encoder = SafetensorsFile::open(folder_ / ("b-" + type + "/text_encoder/model.safetensors"));
    EXPECT_EQ(encoder.entry("encoder.block.0.layer.1.DenseReluDense.wo.weight").dtype,
              type == "f32" ? DType::f32 : DType::i8);
    EXPECT_EQ(encoder.entry("shared.weight").dtype, type == "f32" ? DType::f32 : DType::bf16);
    const Result painted = run({"generate", "two red stars", "-m", "b-" + type + "/", "--steps", "3", "--seed",
                                "5", "-o", type + ".png"},
                               {folder_.path()});
    ASSERT_TRUE(succeeded(painted));
    EXPECT_TRUE(painted.out.starts_with("b-" + type + ": ")) << painted.out;
    EXPECT_LT(mean_difference(read_image(folder_ / (type + ".png")), read_image(folder_ / "a.png")),
              type == "f32" ? 2 : 25)
        << type;
  }
}

TEST_F(ModelOfTexts, ABundleInEightBitsGoesBackToFloats) {
  const auto quantize = [&](const char* from, const char* to, const char* type) {
    return run({"quantize", from, "-o", to, "--transformer-dtype", type, "--text-encoder-dtype", type},
               {folder_.path()});
  };
  const Result small = quantize("model", "small", "int8");
  ASSERT_TRUE(succeeded(small));
  EXPECT_NE(small.out.find("transformer: f32, bf16, i8; text encoder: "), std::string::npos) << small.out;
  const Result wide = quantize("small", "wide", "f32");
  ASSERT_TRUE(succeeded(wide));
  EXPECT_NE(wide.out.find("transformer: f32; text encoder: f32;"), std::string::npos) << wide.out;
  for (const char* part : {"transformer/diffusion_pytorch_model", "text_encoder/model"}) {
    const auto file = SafetensorsFile::open(folder_ / "wide" / (std::string(part) + ".safetensors"));
    for (const std::string& name : file.names()) EXPECT_EQ(file.entry(name).dtype, DType::f32) << name;
  }
  EXPECT_TRUE(
      succeeded(run({"generate", "a star", "-m", "wide", "--steps", "2", "-o", "p.png"}, {folder_.path()})));
}

TEST_F(ModelOfTexts, ALinearStudentInheritsAllButTheAttention) {
  const Result result =
      run({"inherit", "--from", "model/transformer", "-o", "lit.safetensors"}, {folder_.path()});
  ASSERT_TRUE(succeeded(result));
  EXPECT_NE(result.out.find("to   LiT text-to-image (mixer lit), 2 blocks, width 24, 2 heads"),
            std::string::npos)
      << result.out;
  const auto teacher = SafetensorsFile::open(folder_ / "model/transformer/diffusion_pytorch_model.safetensors");
  const auto student = SafetensorsFile::open(folder_ / "lit.safetensors");
  EXPECT_EQ(relative_error(student.tensor("blocks.1.cross_attn.q_linear.weight"),
                           teacher.tensor("transformer_blocks.1.attn2.to_q.weight")),
            0);
  EXPECT_EQ(
      relative_error(student.tensor("final_layer.scale_shift_table"), teacher.tensor("scale_shift_table")), 0);
  EXPECT_FALSE(student.contains("blocks.0.attn.qkv.weight"));
  ASSERT_TRUE(succeeded(run({"inherit", "--from", "model/transformer", "--also", "v", "-o", "also.safetensors"},
                            {folder_.path()})));
  EXPECT_EQ(
      relative_error(
          SafetensorsFile::open(folder_ / "also.safetensors").tensor("blocks.0.attn.kv.weight").rows(24, 48),
          teacher.tensor("transformer_blocks.0.attn1.to_v.weight")),
      0);
  EXPECT_TRUE(
      succeeded(run({"generate", "a star", "-m", "lit.safetensors", "--text-encoder", "model/text_encoder",
                     "--tokenizer", "model/tokenizer", "--vae", "model/vae", "--steps", "2", "-o", "a.png"},
                    {folder_.path()})));
}

TEST_F(ModelOfTexts, AModelOfTextsStartsFromOneOfClasses) {
  const auto inherit = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"inherit", "--from", "builtin", "-o", "texts.safetensors"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments, {folder_.path()});
  };
  const Result result = inherit({"--texts", "--text-width", "16", "--text-tokens", "8", "--enlarge", "2",
                                 "--prediction", "x0", "--fixed-variance"});
  ASSERT_TRUE(succeeded(result));
  EXPECT_NE(result.out.find("made for 64 x 64 pixels"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("76 of 110 tensors inherited"), std::string::npos) << result.out;
  EXPECT_TRUE(failed(inherit({"--enlarge", "2"}), 2, "--enlarge requires --texts"));
  EXPECT_TRUE(failed(inherit({"--texts", "--mixer", "lit"}), 2, "excludes"));
  EXPECT_TRUE(failed(inherit({"--texts", "--prediction", "epsilon"}), 2, "only v becomes x0"));
  EXPECT_TRUE(failed(
      run({"inherit", "--from", "texts.safetensors", "--texts", "-o", "b.safetensors"}, {folder_.path()}), 2,
      "a model of texts already"));
}

TEST_F(ModelOfTexts, InfoSaysWhatThePartsAre) {
  const auto says = [&](const std::string& file, const std::string& what) {
    const Result result = run({"info", file}, {folder_.path()});
    EXPECT_TRUE(succeeded(result));
    EXPECT_NE(result.out.find(what), std::string::npos) << result.out;
  };
  says("model", "PixArt text-to-image (mixer softmax), 2 blocks, width 24, 3 heads");
  says("model", "diffusers' names");
  says("model/text_encoder", "T5, 3 blocks, width 24, 3 heads of 8, 60 pieces");
  says("model/vae", "Autoencoder");
  says("model", "predicts      the noise");
  EXPECT_EQ(run({"info", "model"}, {folder_.path()}).out.find("pipeline"), std::string::npos);
  ASSERT_TRUE(succeeded(run({"inherit", "--from", "model", "-o", "lit.safetensors"}, {folder_.path()})));
  says("lit.safetensors", "LiT text-to-image (mixer lit)");
  ASSERT_TRUE(succeeded(
      run({"inherit", "--from", "model", "--mixer", "linear", "-o", "plain.safetensors"}, {folder_.path()})));
  says("plain.safetensors", "LiT text-to-image (mixer linear)");
}

TEST_F(ModelOfTexts, TheTransformerIsConverted) {
  const Arguments parts = {"--text-encoder", "model/text_encoder", "--tokenizer", "model/tokenizer",
                           "--vae",          "model/vae"};
  ASSERT_TRUE(succeeded(generate({"a star", "-o", "a.png", "--dtype", "f32"})));
  for (const std::string type : {"f32", "bf16", "int8"}) {
    const std::string file = type + ".safetensors";
    ASSERT_TRUE(succeeded(run({"convert", "model", "-o", file, "--dtype", type}, {folder_.path()})));
    Arguments paint = {"generate", "a star", "-m", file, "--steps", "3", "--seed", "5", "-o", type + ".png"};
    if (type == "f32") paint.insert(paint.end(), {"--dtype", "f32"});
    paint.insert(paint.end(), parts.begin(), parts.end());
    ASSERT_TRUE(succeeded(run(paint, {folder_.path()})));
    EXPECT_LE(mean_difference(read_image(folder_ / (type + ".png")), read_image(folder_ / "a.png")),
              type == "f32" ? 0 : 25);
  }
  EXPECT_TRUE(failed(run({"convert", "model", "-o", "d", "--names", "diffusers"}, {folder_.path()}), 2,
                     "original names"));
}

TEST_F(ModelOfTexts, ABundleIsWrittenAsAWholeOrNotAtAll) {
  fs::create_directories(folder_ / "there");
  EXPECT_TRUE(failed(run({"quantize", "model", "-o", "there"}, {folder_.path()}), 2, "there already"));
  EXPECT_TRUE(failed(run({"quantize", "model", "-o", "none/b"}, {folder_.path()}), 1, "none"));
  EXPECT_TRUE(failed(run({"quantize", "model", "-o", "b", "--transformer-dtype", "int4"}, {folder_.path()}), 2,
                     "int8, bf16"));
  fs::create_directories(folder_ / "empty.partial");  // of one that was killed at once
  EXPECT_TRUE(succeeded(run({"quantize", "model", "-o", "empty"}, {folder_.path()})));
  fs::create_directories(folder_ / "b.partial/transformer");
  EXPECT_TRUE(
      failed(run({"quantize", "model", "-o", "b"}, {folder_.path()}), 2, "b.partial first, which is there"));
  EXPECT_TRUE(fs::exists(folder_ / "b.partial/transformer"));
  std::ofstream(folder_ / "b.partial/quantize.lock");  // of one that was killed
  std::ofstream(folder_ / "b.partial/transformer/diffusion_pytorch_model.safetensors.partial") << "half";
  // The disk is full after 100,000 bytes.
  const auto full = [] {
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  };
  EXPECT_TRUE(
      failed(run({"quantize", "model", "-o", "b", "--transformer-dtype", "f32"}, {folder_.path(), full}), 1,
             "File too large"));
  EXPECT_FALSE(fs::exists(folder_ / "b"));
  EXPECT_FALSE(fs::exists(folder_ / "b.partial"));
  ASSERT_TRUE(succeeded(run({"quantize", "model", "-o", "b"}, {folder_.path()})));
  fs::remove_all(folder_ / "model/vae");
  EXPECT_TRUE(failed(run({"quantize", "model", "-o", "c"}, {folder_.path()}), 2, "--parts"));
  EXPECT_TRUE(succeeded(run({"quantize", "model/transformer", "--parts", "b", "-o", "c/"}, {folder_.path()})));
  EXPECT_TRUE(fs::exists(folder_ / "c/model_index.json"));
}

}  // namespace
}  // namespace linnet::test
