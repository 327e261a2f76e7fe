// Painting from texts as a user does it: a folder as the Hub lays it out, and all that can be wrong with one.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "store/t5_file.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

class TextToImage : public testing::Test {
 protected:
  TextToImage() { copy_text_model(folder_ / "model"); }
  Result generate(const Arguments& more) const {
    Arguments all = {"generate", "--model", "model", "--steps", "3", "--seed", "5"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_.path()});
  }
  std::string bytes(const std::string& name) const { return contents(folder_ / name); }
  void write_t5(const std::string& name, int64_t vocabulary, int64_t width) const {
    T5Config config;
    config.vocabulary = vocabulary;
    config.width = config.hidden = width;
    config.depth = config.heads = 1;
    config.head_size = 8;
    T5Encoder encoder(config);
    nn::initialize(encoder, 1);
    fs::create_directories(folder_ / name);
    save_t5(folder_ / name, encoder, DType::f32);
  }

  TemporaryFolder folder_;
};

TEST_F(TextToImage, PaintsWhatDiffusersPaints) {
  const std::string reference = data_file("reference/text_pipeline.safetensors");
  const auto expected = SafetensorsFile::open(reference);
  ASSERT_TRUE(succeeded(run({"generate", "Two red Stars above a blue ring ", "a corgi", "--model", "model",
                             "--negative", "Many small moons", "--steps", "6", "--dtype", "f32", "--noise",
                             reference, "-o", "p.png", "--latents-out", "l"},
                            {folder_.path()})));
  EXPECT_LT(relative_error(SafetensorsFile::open(folder_ / "l").tensor("latents"), expected.tensor("latents")),
            1e-4);
  const Tensor pictures = expected.tensor("pictures");
  for (int64_t i = 0; i < 2; ++i) {
    const Image image = read_image(folder_ / fmt::format("p-000{}.png", i + 1));
    const auto* values = static_cast<const uint8_t*>(pictures.raw()) + i * 3 * 32 * 32;
    for (int64_t k = 0; k < 32 * 32; ++k)
      for (int64_t c = 0; c < 3; ++c)
        ASSERT_LE(std::abs(int{image.rgb[static_cast<size_t>(k * 3 + c)]} - int{values[c * 32 * 32 + k]}), 2);
  }
}

// Of eight sentences, what the judge calls right.
TEST_F(TextToImage, TheModelInsideTheProgramPaintsSentences) {
  std::ofstream(folder_ / "texts")
      << "a red circle\na large green square\na pink moon\ntwo blue circles\n"
         "two red stars above a blue ring\na yellow ring right of a purple star\n"
         "a purple star right of a yellow ring\na green square below a pink circle\n";
  ASSERT_TRUE(succeeded(run({"generate", "--prompts", "texts", "--seed", "5", "-o", "s/"}, {folder_.path()})));
  ASSERT_TRUE(succeeded(run({"eval", "scenes", "s", "--json", "score.json"}, {folder_.path()})));
  const auto score = nlohmann::json::parse(contents(folder_ / "score.json"));
  EXPECT_EQ(score["pictures"], 8);
  EXPECT_GE(score["right"], 7) << score.dump(2);
  const Result info = run({"info", "builtin-text"});
  EXPECT_NE(info.out.find("64 x 64"), std::string::npos) << info.out;
  const Result pieces = run({"tokenize", "builtin", "two red stars"});
  EXPECT_TRUE(succeeded(pieces));
  EXPECT_NE(pieces.out.find("red"), std::string::npos) << pieces.out;
}

// Clipped, as pixels are, and guided by 3 until timestep 400.
TEST_F(TextToImage, TheModelInsideTheProgramPaintsAsSuitsItUnlessToldOtherwise) {
  const auto painted = [&](const Arguments& more) {
    Arguments all = {"generate", "a red circle", "--steps", "3", "--seed", "5", "-o", "p.png"};
    all.insert(all.end(), more.begin(), more.end());
    EXPECT_TRUE(succeeded(run(all, {folder_.path()})));
    return read_image(folder_ / "p.png");
  };
  const Image usual = painted({});
  EXPECT_EQ(usual, painted({"--clip", "on", "--cfg", "3", "--cfg-interval", "400:999"}));
  EXPECT_NE(usual, painted({"--clip", "off"}));
  EXPECT_NE(usual, painted({"--cfg-interval", "0:999"}));
}

TEST_F(TextToImage, TheModelInsideTheProgramSaysWhichSentencesItKnows) {
  const auto said_of = [&](const Arguments& texts) {
    Arguments all = {"generate", "--steps", "1", "-o", "p/"};
    all.insert(all.end(), texts.begin(), texts.end());
    const Result result = run(all, {folder_.path()});
    EXPECT_TRUE(succeeded(result));
    return result.out;
  };
  EXPECT_EQ(said_of({"a red star"}).find("has not learned"), std::string::npos);
  fs::remove_all(folder_ / "p");
  EXPECT_NE(said_of({"a red star", "a corgi", "two red stars and two blue rings"})
                .find("builtin-text has not learned \"a corgi\" and 1 more"),
            std::string::npos);
}

// Whatever is usual for a model: what was asked for is said, so that it can be asked for again.
TEST_F(TextToImage, SaysWhenThereWasGuidance) {
  const auto interval_of = [&](const Arguments& options) {
    Arguments all = {"generate", "a red star", "--steps", "2", "-o", "p.png"};
    all.insert(all.end(), options.begin(), options.end());
    EXPECT_TRUE(succeeded(run(all, {folder_.path()})));
    return read_image_notes(folder_ / "p.png").text.at("cfg-interval");
  };
  EXPECT_EQ(interval_of({}), "400:999");
  EXPECT_EQ(interval_of({"--cfg-interval", "0:999"}), "0:999");
  EXPECT_NE(run({"info", "p.png"}, {folder_.path()}).out.find("--cfg 3 --cfg-interval 0:999"),
            std::string::npos);
}

TEST_F(TextToImage, SaysHowItWasPaintedAndPaintsItAgain) {
  ASSERT_TRUE(
      succeeded(generate({"it's a star", "-o", "a.png", "--unconditional", "text", "--negative", "moon"})));
  const auto text = read_image_notes(folder_ / "a.png").text;
  EXPECT_EQ(text.at("prompt"), "it's a star");
  EXPECT_EQ(text.at("size"), "32x32");
  const Result info = run({"info", "a.png"}, {folder_.path()});
  const size_t at = info.out.find("linnet generate");
  ASSERT_NE(at, std::string::npos) << info.out;
  EXPECT_NE(info.out.find("'it'\\''s a star' --model model"), std::string::npos) << info.out;
  ASSERT_TRUE(succeeded(generate({"it's a star", "-o", "b.png", "--negative", "moon"})));
  EXPECT_EQ(bytes("a.png"), bytes("b.png"));
  ASSERT_TRUE(succeeded(generate({"it's a star", "-o", "c.png"})));
  EXPECT_NE(bytes("a.png"), bytes("c.png"));
}

TEST_F(TextToImage, SaysWhatOfTheFoldersSchedulerIsNotFollowed) {
  fs::create_directories(folder_ / "model/scheduler");
  std::ofstream(folder_ / "model/model_index.json") << "{}";
  std::ofstream(folder_ / "model/scheduler/scheduler_config.json") << R"({"use_karras_sigmas": true})";
  const std::string note = "asks for use_karras_sigmas, which is not followed";
  const Result painted = generate({"a star", "-o", "p.png"}), info = run({"info", "model"}, {folder_.path()});
  EXPECT_TRUE(succeeded(painted));
  EXPECT_NE(painted.out.find("its scheduler " + note), std::string::npos) << painted.out;
  EXPECT_NE(info.out.find(note), std::string::npos) << info.out;
}

// As a user pastes it: the command that info shows, in bash.
TEST_F(TextToImage, TheCommandThatInfoShowsPaintsTheSameBytes) {
  const auto painted_again = [&](const std::string& name) {
    const std::string info = run({"info", name}, {folder_.path()}).out;
    const size_t at = info.find("linnet generate");
    EXPECT_NE(at, std::string::npos) << info;
    std::ofstream(folder_ / "again.sh") << "linnet() { " LINNET_COMMAND " \"$@\"; }\n"
                                        << info.substr(at) << "\n";
    const std::string script = fmt::format("cd {} && bash again.sh > /dev/null", folder_.path().string());
    EXPECT_EQ(std::system(script.c_str()), 0) << info;
    return bytes("out.png");
  };
  ASSERT_TRUE(succeeded(generate({"two stars\n\tit's \\n", "-o", "a.png"})));
  EXPECT_EQ(painted_again("a.png"), bytes("a.png"));
  ASSERT_TRUE(succeeded(generate({std::string(5000, 'a'), "-o", "b.png"})));
  EXPECT_EQ(painted_again("b.png"), bytes("b.png"));
  ASSERT_TRUE(succeeded(
      generate({"a star", "a moon", "-n", "5", "--grid", "--columns", "3", "--scale", "2", "-o", "c.png"})));
  EXPECT_EQ(painted_again("c.png"), bytes("c.png"));
}

TEST_F(TextToImage, ATextThatLooksLikeAnOptionIsSaidBehindThem) {
  for (const std::string text : {"-n", "++"}) {
    ASSERT_TRUE(succeeded(run({"generate", "-o", "a.png", "--steps", "2", "--", text}, {folder_.path()})));
    EXPECT_EQ(read_image_notes(folder_ / "a.png").text.at("prompt"), text);
    const Result info = run({"info", "a.png"}, {folder_.path()});
    EXPECT_NE(info.out.find("-o out.png -- " + text), std::string::npos) << info.out;
  }
}

TEST_F(TextToImage, ATextInSquareBracketsIsOne) {
  ASSERT_TRUE(succeeded(generate({"[a star, a moon]", "[a ring]", "a, b", "-o", "a.png"})));
  EXPECT_EQ(read_image_notes(folder_ / "a-0001.png").text.at("prompt"), "[a star, a moon]");
  EXPECT_EQ(read_image_notes(folder_ / "a-0002.png").text.at("prompt"), "[a ring]");
  EXPECT_EQ(read_image_notes(folder_ / "a-0003.png").text.at("prompt"), "a, b");
}

TEST_F(TextToImage, NoOutputTakesThePlaceOfWhatIsRead) {
  std::ofstream(folder_ / "texts.png") << "a star\n";
  fs::copy(folder_ / "model", folder_ / "other", fs::copy_options::recursive);
  write_safetensors(folder_ / "noise", {{"noise", Tensor::zeros({1, 4, 16, 16})}});
  const Arguments given = {"--prompts",   "texts.png",      "--noise",        "noise",
                           "--vae",       "other/vae/",     "--text-encoder", "other/text_encoder",
                           "--tokenizer", "other/tokenizer"};
  const auto refused = [&](const std::string& file, const Arguments& outputs) {
    const std::string before = bytes(file);
    Arguments all = given;
    all.insert(all.end(), outputs.begin(), outputs.end());
    EXPECT_TRUE(failed(generate(all), 2, "the file that is read")) << file;
    EXPECT_TRUE(bytes(file) == before) << file;
  };
  for (const std::string file : {"texts.png", "noise", "model/transformer/diffusion_pytorch_model.safetensors",
                                 "other/vae/diffusion_pytorch_model.safetensors",
                                 "other/text_encoder/model.safetensors", "other/tokenizer/spiece.model"}) {
    refused(file, {"-o", "a.png", "--latents-out", file});
    refused(file, {"-o", "d/", "--npz", file});
  }
  refused("texts.png", {"-o", "texts.png"});
}

TEST_F(TextToImage, ManyTextsAndManyPicturesOfOne) {
  std::ofstream(folder_ / "texts") << "a star\n\ntwo moons\n";
  ASSERT_TRUE(succeeded(generate({"--prompts", "texts", "-n", "3", "-o", "samples/"})));
  EXPECT_EQ(read_image_notes(folder_ / "samples/000000.png").text.at("prompt"), "a star");
  EXPECT_EQ(read_image_notes(folder_ / "samples/000001.png").text.at("prompt"), "two moons");
  EXPECT_EQ(read_image_notes(folder_ / "samples/000002.png").text.at("prompt"), "a star");
  EXPECT_NE(bytes("samples/000000.png"), bytes("samples/000002.png"));
  ASSERT_TRUE(succeeded(generate({"a star", "-n", "4", "--grid", "-o", "sheet.webp"})));
  EXPECT_EQ(read_image_notes(folder_ / "sheet.webp").text.at("count"), "4");
}

TEST_F(TextToImage, TextsAreReadAsWindowsWritesThem) {
  std::ofstream(folder_ / "texts") << "\xef\xbb\xbf"
                                      "a star\r\na moon\r\n";
  ASSERT_TRUE(succeeded(generate({"--prompts", "texts", "-o", "a.png"})));
  EXPECT_EQ(read_image_notes(folder_ / "a-0001.png").text.at("prompt"), "a star");
  EXPECT_EQ(read_image_notes(folder_ / "a-0002.png").text.at("prompt"), "a moon");
}

TEST_F(TextToImage, OnlyTextsOfPicturesThatAreLeftAreEncoded) {
  std::ofstream(folder_ / "texts") << "a star\ntwo moons\na ring\na cross\n";
  const auto encoded = [&](const Arguments& more) {
    Arguments all = {"--prompts", "texts", "--batch", "1", "-o", "s/"};
    all.insert(all.end(), more.begin(), more.end());
    const Result result = generate(all);
    EXPECT_TRUE(succeeded(result));
    return result.out.substr(result.out.find("text: "), std::string("text: 2 of 3").size());
  };
  EXPECT_EQ(encoded({"-n", "2"}), "text: 3 of 3");  // with what guidance leads away from
  EXPECT_EQ(encoded({"-n", "4"}), "text: 3 of 5");
  EXPECT_EQ(encoded({"-n", "4"}), "text: 0 of 5");
}

TEST_F(TextToImage, CachedTextsNeedNoEncoding) {
  const Result first = generate({"a star", "-o", "a.png", "--cache", "cache"});
  EXPECT_NE(first.out.find("2 of 2 encoded"), std::string::npos) << first.out;
  const Result second = generate({"a star", "-o", "b.png", "--cache", "cache"});
  EXPECT_NE(second.out.find("0 of 2 encoded"), std::string::npos) << second.out;
  EXPECT_EQ(bytes("a.png"), bytes("b.png"));
  for (const auto& entry : fs::directory_iterator(folder_ / "cache")) std::ofstream(entry.path()) << "damaged";
  const Result third = generate({"a star", "-o", "c.png", "--cache", "cache"});
  EXPECT_NE(third.out.find("2 of 2 encoded"), std::string::npos) << third.out;
  EXPECT_EQ(bytes("a.png"), bytes("c.png"));
}

TEST_F(TextToImage, ALongTextIsCutAndSaidToBe) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "two red stars ";
  const Result result = generate({text, "-o", "a.png"});
  EXPECT_TRUE(succeeded(result));
  EXPECT_NE(result.out.find("is cut after 300 tokens"), std::string::npos) << result.out;
}

TEST_F(TextToImage, ATextThatIsTooLongIsRefusedWithItsNumber) {
  const std::string text(65537, 'a');
  EXPECT_TRUE(failed(generate({"a star", text, "-o", "a.png"}), 1, "text 2 of 3"));
  EXPECT_TRUE(failed(generate({"a star", "--negative", text, "-o", "a.png"}), 1, "text 2 of 2"));
  std::ofstream(folder_ / "texts") << "a star\n\n" << text << "\n";
  EXPECT_TRUE(failed(generate({"--prompts", "texts", "-o", "a.png"}), 1,
                     "texts, line 3: its text has 65537 bytes, and at most 65536 are read"));
  EXPECT_TRUE(failed(run({"tokenize", "builtin", text}), 1, "65537 bytes"));
  EXPECT_FALSE(fs::exists(folder_ / "a.png"));
}

TEST_F(TextToImage, ASizeIsTheNearestThatThePatchesAllow) {
  const Result result = generate({"a star", "--size", "50x30", "-o", "a.png"});
  EXPECT_TRUE(succeeded(result));
  EXPECT_NE(result.out.find("size: 48x32, the nearest to 50x30 that the model can paint\n"), std::string::npos)
      << result.out;
  EXPECT_EQ(read_image(folder_ / "a.png").width, 48);
  EXPECT_EQ(read_image(folder_ / "a.png").height, 32);
}

TEST_F(TextToImage, WrongUsageIsOneSentence) {
  EXPECT_TRUE(failed(generate({"-o", "a.png"}), 2, "say what to paint"));
  EXPECT_TRUE(failed(generate({"a", "-c", "7", "-o", "a.png"}), 2, "texts, not classes"));
  write_small_model(folder_ / "classes.safetensors");
  EXPECT_TRUE(failed(run({"generate", "a star", "-m", "classes.safetensors", "-o", "a.png"}, {folder_.path()}),
                     2, "not texts"));
  EXPECT_TRUE(failed(generate({"caf\xe9", "-o", "a.png"}), 1, "not UTF-8"));
  EXPECT_TRUE(failed(generate({"a", "--size", "huge", "-o", "a.png"}), 2, "1024x768"));
  EXPECT_TRUE(failed(generate({"a", "--size", "0x5", "-o", "a.png"}), 2, "1024x768"));
  EXPECT_TRUE(failed(generate({"a", "--cleaning", "soap", "-o", "a.png"}), 2, "lower or strip"));
  EXPECT_TRUE(failed(generate({"a", "--time-grid", "odd", "-o", "a.png"}), 2, "rounded or fractional"));
  EXPECT_TRUE(failed(generate({"a", "--time-grid", "fractional", "--sampler", "ddim", "-o", "a.png"}), 2,
                     "--time-grid is of dpm++: ddim has one grid"));
  EXPECT_TRUE(failed(generate({"a", "--negative", "blurry", "--cfg", "1", "-o", "a.png"}), 2,
                     "with --cfg 1 there is no guidance"));
  EXPECT_TRUE(failed(generate({"a", "--unconditional", "none", "-o", "a.png"}), 2, "text or null"));
  EXPECT_TRUE(failed(generate({"a", "--unconditional", "null", "-o", "a.png"}), 2, "embedding of no text"));
  EXPECT_FALSE(fs::exists(folder_ / "a.png"));
}

TEST_F(TextToImage, WhatCannotBePaintedIsRefusedBeforeTextsAreEncoded) {
  write_safetensors(folder_ / "noise", {{"noise", Tensor::zeros({1, 4, 3, 3})}});
  ASSERT_TRUE(succeeded(generate({"a star", "-o", "there/"})));
  const auto refused = [&](const Arguments& more, int code, const std::string& sentence) {
    Arguments all = {"generate", "a moon", "--model", "model", "--seed", "5"};
    all.insert(all.end(), more.begin(), more.end());
    if (std::ranges::find(more, "-o") == more.end()) all.insert(all.end(), {"-o", "a.png"});
    const Result result = run(all, {folder_.path()});
    EXPECT_TRUE(failed(result, code, sentence));
    EXPECT_EQ(result.out.find("text:"), std::string::npos) << result.out;
  };
  refused({"--noise", "noise"}, 1, "the noise has shape (1, 4, 3, 3)");
  refused({"--steps", "1000"}, 2, "1 to 999 steps");
  refused({"-n", "0"}, 2, "0");
  refused({"-n", "0", "--grid"}, 2, "0");
  refused({"--batch", "-1"}, 2, "-1 pictures at once");
  refused({"--dtype", "int4"}, 2, "int4");
  refused({"--unconditional", "null"}, 2, "embedding of no text");
  refused({"--grid", "-n", "2000", "--columns", "1", "--scale", "100"}, 1, "sheet");
  refused({"-o", "there/"}, 1, "painted otherwise");
}

TEST_F(TextToImage, AFolderOfAPartDoesNotPaint) {
  for (const auto& [folder, what] :
       {std::pair{"model/vae", "an autoencoder"}, {"model/text_encoder", "a text encoder"}})
    for (const Arguments& wanted : {Arguments{"a star"}, Arguments{"--class", "1"}}) {
      Arguments all = {"generate", "--model", folder, "-o", "a.png"};
      all.insert(all.end(), wanted.begin(), wanted.end());
      EXPECT_TRUE(failed(run(all, {folder_.path()}), 1, what));
    }
}

TEST_F(TextToImage, WhatIsMissingOrDoesNotBelongTogetherIsNamed) {
  fs::rename(folder_ / "model/tokenizer", folder_ / "elsewhere");
  EXPECT_TRUE(failed(generate({"a", "-o", "a.png"}), 2, "--tokenizer"));
  EXPECT_TRUE(succeeded(generate({"a", "--tokenizer", "elsewhere", "-o", "b.png"})));
  std::ofstream(folder_ / "elsewhere/spiece.model") << "no model";
  EXPECT_TRUE(failed(generate({"a", "--tokenizer", "elsewhere", "-o", "a.png"}), 1, "no SentencePiece model"));
  fs::copy_file(data_file("tokenizer/spiece.model"), folder_ / "elsewhere/spiece.model",
                fs::copy_options::overwrite_existing);
  EXPECT_TRUE(failed(generate({"a", "--tokenizer", "elsewhere", "--text-encoder", "model/vae", "-o", "a.png"}),
                     1, "no T5 text encoder"));
  write_t5("wide", 60, 32);
  EXPECT_TRUE(failed(generate({"a", "--tokenizer", "elsewhere", "--text-encoder", "wide", "-o", "a.png"}), 1,
                     "its states are 32 wide, and the transformer takes 24"));
  write_t5("few", 20, 24);
  EXPECT_TRUE(failed(generate({"a", "--tokenizer", "elsewhere", "--text-encoder", "few", "-o", "a.png"}), 1,
                     "and the text encoder knows 20"));
  fs::remove_all(folder_ / "model/vae");
  EXPECT_TRUE(failed(generate({"a", "--tokenizer", "elsewhere", "-o", "a.png"}), 2, "--vae"));
  EXPECT_TRUE(succeeded(generate({"a", "--tokenizer", "elsewhere", "--latents-out", "l"})));
  EXPECT_FALSE(fs::exists(folder_ / "a.png"));
}

TEST_F(TextToImage, MemoryIsSharedOrSaidToBeTooLittle) {
  const Result whole = generate({"a star", "two moons", "-o", "a.png", "--batch", "1"});
  ASSERT_TRUE(succeeded(whole));
  EXPECT_NE(whole.out.find("; decoding took "), std::string::npos) << whole.out;
  const Result refused = generate({"a star", "-o", "x.png", "--memory", "1M"});
  EXPECT_TRUE(failed(refused, 2, "at least"));
  EXPECT_FALSE(fs::exists(folder_ / "x.png"));
  // The least that is said to do does; the model then makes way for the autoencoder after each picture.
  const size_t at = refused.err.find("at least ") + 9;
  const std::string least = refused.err.substr(at, refused.err.find(' ', at) - at);
  ASSERT_TRUE(succeeded(generate({"a star", "two moons", "-o", "b.png", "--batch", "1", "--memory", least})));
  for (const char* i : {"1", "2"}) {
    const Image a = read_image(folder_ / fmt::format("a-000{}.png", i)),
                b = read_image(folder_ / fmt::format("b-000{}.png", i));
    for (size_t k = 0; k < a.rgb.size(); ++k) ASSERT_LE(std::abs(a.rgb[k] - b.rgb[k]), 1);
  }
}

}  // namespace
}  // namespace linnet::test
