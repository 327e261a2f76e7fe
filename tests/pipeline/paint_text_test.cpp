// Texts and sizes on their way to a picture.
#include "pipeline/paint_text.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "ops/support.h"
#include "pipeline/text_encoding.h"
#include "support/refusal.h"

namespace linnet {
namespace {

TEST(Cleaning, IsThatOfDiffusersOrOfPixArt) {
  EXPECT_EQ(clean("  Two RED Stars\n", Cleaning::lower), "two red stars");
  EXPECT_EQ(clean("  Two RED Stars\n", Cleaning::strip), "Two RED Stars");
  EXPECT_EQ(clean("\u0085 \u0085\t", Cleaning::strip), "");
  EXPECT_EQ(clean("\u0085Star \u0085", Cleaning::strip), "Star");
  EXPECT_EQ(clean("ÄRGER im Café, ΣΊΣΥΦΟΣ, 🦊", Cleaning::lower),
            "ärger im café, σίσυφοσ, 🦊");
  EXPECT_EQ(clean(" \t ", Cleaning::lower), "");
  test::expect_refused("not UTF-8", [] { clean("caf\xe9", Cleaning::strip); });
}

TEST(Tokenize, SaysWhichTextIsTooLong) {
  const Tokenizer tokenizer = Tokenizer::open(LINNET_TEST_DATA "/tokenizer");
  const std::string longest(65536, 'a');
  EXPECT_EQ(tokenize(tokenizer, {"a star", longest}, 300, Cleaning::lower).ids[1].size(), 300u);
  EXPECT_EQ(test::refusal([&] {
              tokenize(tokenizer, {"a star", longest + "a"}, 300, Cleaning::lower);
            }),
            "text 2 of 2, \"" + std::string(60, 'a') + "...\", has 65537 bytes, and at most 65536 are read");
}

TEST(PictureSize, IsTheNearestOfThoseThatTheModelKnows) {
  EXPECT_EQ(snap_size({1024, 1024}, 1024, 16), (SizeInPixels{1024, 1024}));
  EXPECT_EQ(snap_size({768, 1024}, 1024, 16), (SizeInPixels{832, 1152}));
  EXPECT_EQ(snap_size({1080, 1920}, 1024, 16), (SizeInPixels{768, 1344}));
  EXPECT_EQ(snap_size({1920, 1080}, 512, 16), (SizeInPixels{672, 384}));
  EXPECT_EQ(snap_size({100, 10000}, 1024, 16), (SizeInPixels{512, 2048}));
  EXPECT_EQ(snap_size({10000, 100}, 256, 16), (SizeInPixels{512, 128}));
  // Of 5:4 the bins of 17:14 and 18:14 are nearly as far, and PixArt knows them as 1.21 and 1.29.
  EXPECT_EQ(snap_size({1280, 1024}, 256, 16), (SizeInPixels{272, 224}));
  EXPECT_EQ(snap_size({256, 320}, 256, 16), (SizeInPixels{224, 272}));
  // Ratios of 0.281 that only the model of 2048 pixels has turned.
  EXPECT_EQ(snap_size({28, 9}, 1024, 16), (SizeInPixels{1728, 576}));
  EXPECT_EQ(snap_size({28, 9}, 2048, 16), (SizeInPixels{3584, 1152}));
  EXPECT_EQ(snap_size({50, 30}, 64, 16), (SizeInPixels{48, 32}));
  EXPECT_EQ(snap_size({1, 1}, 64, 16), (SizeInPixels{16, 16}));
  EXPECT_EQ(snap_size({144, 256}, 256, 32), (SizeInPixels{192, 352}));  // a bin of 192 x 336
}

TEST(TextRequest, SizesThatTheModelCannotPaintAreRefused) {
  PixArtConfig model;
  model.sample_size = 16;
  model.kv_compression = std::vector<int64_t>(28, 2);
  TextPaintRequest request;
  request.height = request.width = 2;
  test::expect_refused("are too small", [&] { check_request(request, model, true); });
  request.height = request.width = 4;
  check_request(request, model, true);
  model.kv_compression.clear();
  model.mixer = nn::Mixer::focused;
  test::expect_refused("paints no other size", [&] { check_request(request, model, true); });
  request.height = request.width = 16;
  check_request(request, model, true);
}

TEST(PictureSize, IsReadAsPeopleWriteIt) {
  EXPECT_EQ(size_from_text("1024x768"), (SizeInPixels{768, 1024}));
  for (const char* text : {"", "x", "5", "5x", "x5", "5x5x5", "-5x5", "5 x 5", "99999x1", "1x0"})
    test::expect_refused("1024x768", [&] { size_from_text(text); });
}

TEST(TextStates, AreJoinedAndTakenApart) {
  const Tensor all = Tensor::from<float>({1, 2, 3, 4, 5, 6}).reshape({6, 1});
  const TextStates three = join({all.rows(3, 6), all.rows(0, 2), all.rows(2, 3)});
  EXPECT_EQ(three.offsets, (ops::Offsets{0, 3, 5, 6}));
  const std::vector<float> values(three.states.data<float>(), three.states.data<float>() + 6);
  EXPECT_EQ(values, (std::vector<float>{4, 5, 6, 1, 2, 3}));
  EXPECT_EQ(three.of(1).shape(), (Shape{2, 1}));
  EXPECT_EQ(three.of(1).data<float>()[1], 2);
  test::expect_refused("do not go together", [&] { join({all, Tensor::zeros({1, 2})}); });
}

// So that their number may be large, and a single long one need not be cut.
TEST(TextEncoding, TakesSoManyTextsAtOnce) {
  const std::vector<std::vector<int64_t>> ids{
      std::vector<int64_t>(1000, 2), std::vector<int64_t>(1048, 2), {2}, std::vector<int64_t>(5000, 2), {2, 2}};
  EXPECT_EQ(texts_at_once(ids, 0), 2u);
  EXPECT_EQ(texts_at_once(ids, 2), 1u);
  EXPECT_EQ(texts_at_once(ids, 3), 1u);
  EXPECT_EQ(texts_at_once(ids, 4), 1u);
}

TEST(TextEncoding, InPartsGivesWhatEachTextGivesAlone) {
  T5Config config;
  config.vocabulary = 50, config.width = 16, config.hidden = 24, config.depth = 2, config.heads = 2,
  config.head_size = 8;
  T5Encoder encoder(config);
  nn::initialize(encoder, 3);
  std::vector<std::vector<int64_t>> ids;
  for (int64_t i = 0; i < 60; ++i) ids.push_back(std::vector<int64_t>(static_cast<size_t>(20 + 2 * i), i % 50));
  int blocks = 0;
  const std::vector<Tensor> each = encode_each(encoder, ids, [&] { ++blocks; });
  EXPECT_EQ(blocks, 2 * 3);  // 4,740 tokens
  ASSERT_EQ(each.size(), ids.size());
  const TextStates together = encode_in_parts(encoder, ids);
  ASSERT_EQ(together.count(), 60);
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_TRUE(ops::test::same_bytes(together.of(static_cast<int64_t>(i)), each[i])) << i;
    const Tensor alone = encode_texts(encoder, {ids[i]}).states;
    ASSERT_EQ(each[i].shape(), alone.shape());
    for (int64_t k = 0; k < alone.numel(); ++k)
      ASSERT_NEAR(each[i].data<float>()[k], alone.data<float>()[k], 1e-5);
  }
}

// A fresh model predicts 0 everywhere, whatever that is of: noise, v or the picture.
TEST(PaintBatch, OneStepGivesThePictureThatThePredictionMeans) {
  const double kept = NoiseSchedule::linear().alpha_bar.back();
  PixArtConfig config;
  config.sample_size = 8;
  config.hidden_size = 24;
  config.depth = config.num_heads = config.num_cross_heads = 1;
  config.caption_channels = 12;
  TextPaintRequest request;
  request.texts = {Tensor::zeros({3, 12})};
  request.height = request.width = 8;
  request.noise = Generator(8).normal({1, 4, 8, 8});
  request.options.steps = 1;
  request.options.guidance_scale = 1;
  request.options.clip_x0 = false;
  for (const Prediction kind : {Prediction::epsilon, Prediction::v, Prediction::x0}) {
    config.prediction = kind;
    PixArt model(config);
    nn::initialize(model, 1);
    const Tensor picture = paint_batch(model, request, 0, 1);
    const double factor = kind == Prediction::x0  ? 0.0
                          : kind == Prediction::v ? std::sqrt(kept)
                                                  : 1.0 / std::sqrt(kept);
    for (int64_t i = 0; i < picture.numel(); ++i)
      EXPECT_NEAR(picture.data<float>()[i], factor * static_cast<double>(request.noise.data<float>()[i]),
                  1e-4 * std::max(1.0, factor))
          << name_of(kind);
  }
}

}  // namespace
}  // namespace linnet
