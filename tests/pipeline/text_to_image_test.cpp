// What everyone does who paints with a text-to-image model, as it is written down once.
#include "pipeline/text_to_image.h"

#include <gtest/gtest.h>

#include "pipeline/pixart_models.h"
#include "store/t5_file.h"
#include "support/compare.h"
#include "support/refusal.h"

namespace linnet {
namespace {

PixArtConfig config_for(const T5Encoder& encoder) {
  PixArtConfig config = test::small_config();
  config.caption_channels = encoder.config().width;
  return config;
}

class PartsOfTextToImage : public testing::Test {
 protected:
  std::unique_ptr<T5Encoder> encoder = load_t5(test::dumps / "t5.model.safetensors");
  Tokenizer tokenizer = Tokenizer::open(LINNET_TEST_DATA "/tokenizer");
  PixArtConfig config = config_for(*encoder);
  TextToImageParts parts{"model", "the/encoder", "the/tokenizer", {}};
};

TEST_F(PartsOfTextToImage, ThatDoNotBelongTogetherAreNamed) {
  make_ready(*encoder, tokenizer, parts, config, "f32", {});
  EXPECT_EQ(encoder->product_dtype(), DType::f32);
  config.caption_channels += 1;
  test::expect_refused("the/encoder: its states are",
                       [&] { make_ready(*encoder, tokenizer, parts, config, "f32", {}); });
  config.caption_channels -= 1;
  T5Config smaller = encoder->config();
  smaller.vocabulary = 2;
  T5Encoder other(smaller);
  test::expect_refused("the/tokenizer: it has",
                       [&] { make_ready(other, tokenizer, parts, config, "f32", {}); });
}

TEST_F(PartsOfTextToImage, OnlyTextsThatAreShownAreEncoded) {
  TextPaintRequest request;
  request.count = 2;
  request.options.guidance_scale = 1;
  encode_for(request, {"a red star", "two moons", "a ring"}, "blurry", *encoder, tokenizer, config);
  EXPECT_EQ(request.texts.size(), 2u);
  EXPECT_FALSE(request.negative.defined()) << "without guidance nothing leads away";

  request.options.guidance_scale = 4;
  request.count = 5;
  encode_for(request, {"a red star", "two moons"}, "a red star", *encoder, tokenizer, config);
  ASSERT_EQ(request.texts.size(), 2u);
  ASSERT_TRUE(request.negative.defined());
  EXPECT_LT(test::relative_error(request.negative, request.texts[0]), 1e-5) << "it is the last one";
}

TEST(SizeToPaint, IsTheModelsOwnUnlessOneIsWanted) {
  PixArtConfig config;
  config.sample_size = 128;
  EXPECT_EQ(size_to_paint({}, config, 8), (SizeInPixels{1024, 1024}));
  EXPECT_EQ(size_to_paint(SizeInPixels{768, 1024}, config, 8), (SizeInPixels{832, 1152}));
  for (const SizeInPixels& none : {SizeInPixels{0, 1024}, SizeInPixels{1024, -1}, SizeInPixels{16385, 1024}})
    test::expect_refused("are impossible", [&] { size_to_paint(none, config, 8); });
}

TEST(UsualOptions, ArePixArtsOfLatentsAndClippedOfPixels) {
  PixArtConfig config;
  GenerateOptions usual = usual_options(config);
  EXPECT_EQ(usual.sampler, Sampler::dpmpp);
  EXPECT_EQ(usual.guidance_scale, 4.5f);
  EXPECT_TRUE(usual.guided.holds(0));
  EXPECT_FALSE(usual.clip_x0);
  config.in_channels = 3;
  usual = usual_options(config);
  EXPECT_EQ(usual.guidance_scale, 3.0f);
  EXPECT_FALSE(usual.guided.holds(399));
  EXPECT_TRUE(usual.clip_x0);
}

TEST(TextRequest, IsCompletedByTheModelAndTheSize) {
  PixArtConfig config;
  config.sample_size = 32;
  TextPaintRequest request;
  complete(request, config, {512, 256}, 8, true);
  EXPECT_EQ(request.height, 64);
  EXPECT_EQ(request.width, 32);
  EXPECT_EQ(request.batch, default_batch(config, 64, 32));
  request.batch = 3;
  complete(request, config, {256, 256}, 8, true);
  EXPECT_EQ(request.batch, 3);
  request.options.steps = 0;
  test::expect_refused("takes 1 to", [&] { complete(request, config, {256, 256}, 8, true); });
}

}  // namespace
}  // namespace linnet
