// Text-to-image models of the public interface, as an embedding program sees them.
#include <gtest/gtest.h>

#include <fstream>

#include <linnet/linnet.h>

#include "api/pictures.h"
#include "gpu/support.h"
#include "io/safetensors.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;
using ops::test::the_gpu;
using test::furthest;

class TextInterface : public testing::Test {
 protected:
  TextInterface() {
    copy("pixart_pipeline", "transformer", "diffusion_pytorch_model.safetensors");
    copy("vae_plain", "vae", "diffusion_pytorch_model.safetensors");
    copy("t5", "text_encoder", "model.safetensors");
    fs::create_directories(model / "tokenizer");
    fs::copy_file(LINNET_TEST_DATA "/tokenizer/spiece.model", model / "tokenizer/spiece.model");
    request.prompts = {"a red star", "two moons"};
    request.steps = 2;
  }
  void copy(const std::string& name, const char* part, const char* file) const {
    const fs::path weights = fmt::format("{}/reference/{}.model.safetensors", LINNET_TEST_DATA, name);
    fs::create_directories(model / part);
    fs::copy_file(weights, model / part / file);
    std::ofstream(model / part / "config.json") << SafetensorsFile::open(weights).metadata().at("config");
  }
  TemporaryFolder folder;
  fs::path model = folder.path() / "model";
  TextRequest request;
};

TEST_F(TextInterface, PaintsEachPromptInItsTurn) {
  const TextModel text(model);
  EXPECT_EQ(text.picture_size(), 32);
  const auto two = text.paint(request);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_NE(two[0].rgb, two[1].rgb);
  EXPECT_EQ(text.paint({.prompts = {"a red star"}, .steps = 2}).size(), 1u);
  request.count = 3;
  request.batch = 1;
  const auto three = text.paint(request);
  ASSERT_EQ(three.size(), 3u);
  EXPECT_EQ(three[2].rgb.size(), 32u * 32u * 3u);
  request.width = 60;
  request.height = 30;
  const auto wide = text.paint(request).front();
  EXPECT_EQ(wide.width, 64);
  EXPECT_EQ(wide.height, 32);
}

TEST_F(TextInterface, GivesEachPictureAwayWhenItsBatchIsPainted) {
  const TextModel text(model);
  request.count = 3;
  request.batch = 2;
  std::vector<Picture> pictures;
  EXPECT_EQ(test::order_of(text, request, pictures), "ss01ss2");
  const auto together = text.paint(request);
  ASSERT_EQ(pictures.size(), together.size());
  for (size_t i = 0; i < together.size(); ++i) EXPECT_EQ(pictures[i].rgb, together[i].rgb) << i;
  EXPECT_THROW(text.paint(request, [](const Picture&, int64_t) { return false; }), Cancelled);
}

TEST_F(TextInterface, TextsAreLoweredAndANegativeOneLeadsAway) {
  const TextModel text(model);
  const auto painted = [&](const std::string& prompt, const std::string& negative) {
    TextRequest one = request;
    one.prompts = {prompt};
    one.negative = negative;
    return text.paint(one).front().rgb;
  };
  const auto plain = painted("a red star", "");
  EXPECT_EQ(painted(" A Red STAR", ""), plain);
  EXPECT_NE(painted("a red star", "two moons"), plain);
}

TEST_F(TextInterface, TellsWhichPromptsAreCut) {
  const TextModel text(model);
  EXPECT_TRUE(text.fits("a red star"));
  EXPECT_FALSE(text.fits(std::string(65536, 'a')));
  test::expect_refused("65537 bytes", [&] { (void)text.fits(std::string(65537, 'a')); });
}

TEST_F(TextInterface, PaintsOnAGpuWhatItPaintsOnTheCpu) {
  LINNET_NEED_GPU();
  const auto expected = TextModel(model, {.precision = Precision::f32}).paint(request);
  const TextModel text(model, {.precision = Precision::f32, .device = "cuda"});
  EXPECT_LE(furthest(text.paint(request), expected), 1);
  for (const Precision precision : {Precision::automatic, Precision::int8, Precision::f16})
    EXPECT_EQ(TextModel(model, {.precision = precision, .device = "cuda"}).paint(request).size(), 2u)
        << static_cast<int>(precision);
  request.on_step = [](int step, int) { return step < 1; };
  EXPECT_THROW(text.paint(request), Cancelled);
}

TEST_F(TextInterface, TakesPartsFromElsewhere) {
  const auto inside = TextModel(model).paint(request).front().rgb;
  for (const char* part : {"text_encoder", "tokenizer", "vae"}) fs::rename(model / part, folder.path() / part);
  EXPECT_THROW(TextModel{model}, UsageError);
  const TextModelOptions parts{.text_encoder = folder / "text_encoder",
                               .tokenizer = folder / "tokenizer",
                               .autoencoder = folder / "vae"};
  EXPECT_EQ(TextModel(model, parts).paint(request).front().rgb, inside);
}

TEST_F(TextInterface, SaysWhatIsWrongAndStopsWhenTold) {
  const TextModel text(model, {.precision = Precision::f32});
  TextRequest other = request;
  other.prompts = {};
  EXPECT_THROW(text.paint(other), UsageError);
  other.prompts = {"caf\xe9"};
  EXPECT_THROW(text.paint(other), Error);
  other.prompts = {std::string(65537, 'a')};
  test::expect_refused("65537 bytes", [&] { text.paint(other); });
  other = request;
  other.negative = std::string(65537, 'a');
  test::expect_refused("65537 bytes", [&] { text.paint(other); });
  other = request;
  other.height = -1;
  EXPECT_THROW(text.paint(other), UsageError);
  other = request;
  other.steps = 0;
  EXPECT_THROW(text.paint(other), UsageError);
  other = request;
  other.on_step = [](int step, int) { return step < 1; };
  EXPECT_THROW(text.paint(other), Cancelled);
}

TEST(BuiltinTextModel, PaintsInItsOwnSizeAndGuidance) {
  const TextModel model = TextModel::builtin();
  EXPECT_EQ(model.picture_size(), 64);
  const auto painted = [&](std::optional<float> scale, std::optional<Timesteps> guided) {
    return model.paint({.prompts = {"a red circle"}, .steps = 3, .guidance_scale = scale, .guided = guided})
        .front();
  };
  const Picture usual = painted({}, {});
  EXPECT_EQ(usual.width, 64);
  EXPECT_EQ(painted(3, Timesteps{400, 999}).rgb, usual.rgb);
  EXPECT_EQ(painted(3, {}).rgb, usual.rgb) << "each has what suits the model by itself";
  EXPECT_EQ(painted({}, Timesteps{400, 999}).rgb, usual.rgb);
  EXPECT_NE(painted({}, Timesteps{}).rgb, usual.rgb);
  EXPECT_NE(painted(0, {}).rgb, usual.rgb) << "0 is a scale as others are";
}

}  // namespace
}  // namespace linnet
