// What a picture says of how it was painted.
#include "pipeline/picture_text.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/matmul.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

TEST(ImageText, SeedsCountUpAndClassesAreCycledThrough) {
  const DiT model(test::tiny_dit());
  PaintRequest request;
  request.count = 3;
  request.seed = 18446744073709551615u;
  request.classes = {2, 1};
  const PictureOrigin origin{"linnet 1", "m", "f", "", {"a", "b", "c"}, 2};
  EXPECT_EQ(picture_text(origin, request, model, 0).at("class"), "c");
  EXPECT_EQ(picture_text(origin, request, model, 1).at("seed"), "0");
  EXPECT_EQ(picture_text(origin, request, model, 2).at("class-index"), "2");
  EXPECT_EQ(sheet_text(origin, request, model).at("classes"), "c,b");
}

TEST(ImageText, ASheetOfClassesWithCommasInTheirNamesSaysTheirNumbers) {
  const DiT model(test::tiny_dit());
  PaintRequest request;
  request.count = 2;
  request.classes = {2, 1};
  const PictureOrigin origin{"linnet 1", "m", "f", "", {"tench, Tinca tinca", "goldfish, gold", "c"}, 2};
  EXPECT_EQ(sheet_text(origin, request, model).at("classes"), "2,1");
  EXPECT_EQ(picture_text(origin, request, model, 1).at("class"), "goldfish, gold");
}

TEST(ImageText, TheCommandIsQuotedForAShell) {
  const std::string command =
      command_of({{"Software", "linnet 1"}, {"class", "it's; rm -rf $HOME"}, {"seed", "7"}});
  EXPECT_EQ(command, "linnet generate --class 'it'\\''s; rm -rf $HOME' --seed 7 -o out.png");
}

TEST(ImageText, WhatMovesTheCursorIsQuotedAsBashReadsIt) {
  const auto command_with = [](const std::string& prompt) {
    return command_of({{"Software", "linnet 1"}, {"prompt", prompt}});
  };
  EXPECT_EQ(command_with("a star\nit's \\n\t\x1b[2J"),
            R"(linnet generate $'a star\nit\'s \\n\t\x1b[2J' -o out.png)");
  EXPECT_EQ(command_with("a\u202eb"), R"(linnet generate $'a\xe2\x80\xaeb' -o out.png)");
  EXPECT_EQ(command_with("ein Bär \\n"), R"(linnet generate 'ein Bär \n' -o out.png)");
}

TEST(ImageText, PromptsAreAskedForInTheOrderOfTheirNumbers) {
  const std::string command = command_of({{"Software", "linnet 1"},
                                          {"prompt-0002", "b"},
                                          {"prompt-9999", "c"},
                                          {"prompt-10000", "d"},
                                          {"prompt-100000", "e"},
                                          {"prompt-0001", "a"},
                                          {"count", "5"},
                                          {"columns", "3"},
                                          {"scale", "2"}});
  EXPECT_EQ(command, "linnet generate a b c d e -n 5 --columns 3 --scale 2 --grid -o out.png");
}

TEST(ImageText, TheAutoencoderIsAskedForAgain) {
  const DiT model(test::tiny_dit());
  PictureOrigin origin{"linnet 1", "m", "f", ""};
  EXPECT_FALSE(picture_text(origin, {}, model, 0).contains("vae"));
  origin.vae = "sd-vae";
  origin.vae_fingerprint = "0123";
  origin.memory = "2G";
  const ImageText text = picture_text(origin, {}, model, 0);
  EXPECT_EQ(text.at("vae-hash"), "0123");
  EXPECT_NE(command_of(text).find("--vae sd-vae --memory 2G"), std::string::npos);
}

TEST(ImageText, ProductsAreNamedAsTheyWereAskedFor) {
  DiT model(test::tiny_dit());
  const PictureOrigin origin{"linnet 1", "m", "f", ""};
  PaintRequest request;
  request.options.device = {Device::Kind::cuda, 0};
  EXPECT_EQ(picture_text(origin, request, model, 0).at("dtype"), "f32");
  ops::set_tf32(true);
  EXPECT_NE(command_of(picture_text(origin, request, model, 0)).find("--dtype tf32 --device cuda"),
            std::string::npos);
  ops::set_tf32(false);
  model.set_product_dtype(DType::i8);
  EXPECT_NE(command_of(picture_text(origin, request, model, 0)).find("--dtype int8 --device cuda"),
            std::string::npos);
}

TEST(ImageText, RawWeightsOfACheckpointAreAskedForAgain) {
  const DiT model(test::tiny_dit());
  const PictureOrigin average{"linnet 1", "m", "f", ""};
  PictureOrigin raw = average;
  raw.raw_weights = true;
  EXPECT_EQ(command_of(picture_text(average, {}, model, 0)).find("--weights"), std::string::npos);
  EXPECT_NE(command_of(picture_text(raw, {}, model, 0)).find("--model m --weights raw"), std::string::npos);
}

TEST(ImageText, WhenThereWasGuidanceIsSaidIfThereWasAny) {
  const DiT model(test::tiny_dit());
  const PictureOrigin origin{"linnet 1", "m", "f", ""};
  PaintRequest request;
  EXPECT_EQ(picture_text(origin, request, model, 0).at("cfg-interval"), "0:999");
  request.options.guided = {299.5f, 999};
  EXPECT_NE(command_of(picture_text(origin, request, model, 0)).find("--cfg 3 --cfg-interval 299.5:999"),
            std::string::npos);
  request.options.guidance_scale = 1;
  EXPECT_FALSE(picture_text(origin, request, model, 0).contains("cfg-interval"));
}

TEST(ImageText, OthersPicturesHaveNoCommand) {
  EXPECT_EQ(command_of({}), "");
  EXPECT_EQ(command_of({{"Software", "GIMP"}, {"class", "x"}}), "");
}

TEST(PaintRequest, WhatNoModelCanDoIsRefused) {
  const auto refused = [](auto change) {
    PaintRequest request;
    change(request);
    try {
      check_request(request, test::tiny_dit());
    } catch (const UsageError&) {
      return true;
    }
    return false;
  };
  EXPECT_FALSE(refused([](PaintRequest&) {}));
  EXPECT_TRUE(refused([](PaintRequest& r) { r.count = 0; }));
  EXPECT_TRUE(refused([](PaintRequest& r) { r.count = most_pictures + 1; }));
  EXPECT_TRUE(refused([](PaintRequest& r) { r.options.steps = 0; }));
  EXPECT_TRUE(refused([](PaintRequest& r) { r.options.guidance_scale = NAN; }));
  EXPECT_TRUE(refused([](PaintRequest& r) { r.options.guided = {5, 4}; }));
  EXPECT_TRUE(refused([](PaintRequest& r) { r.options.guided.to = NAN; }));
  EXPECT_TRUE(refused([](PaintRequest& r) { r.classes = {3}; }));
  EXPECT_TRUE(refused([](PaintRequest& r) {
    r.options.sampler = Sampler::dpmpp;
    r.options.steps = 1000;
  }));
}

}  // namespace
}  // namespace linnet
