// linnet generate, and what linnet info says of its pictures.
#include <fmt/format.h>

#include <csignal>
#include <sstream>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "store/dit_file.h"
#include "support/processor.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

class Generate : public testing::Test {
 protected:
  // linnet generate with the small model, few steps and more options, in the test's folder.
  Result generate(const Arguments& more) const {
    Arguments all = {"generate", "--model", model_, "--steps", "3"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_.path()});
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names = listing(folder_.path());
    std::erase(names, "small.safetensors");
    return names;
  }
  std::string bytes(const std::string& name) const { return contents(folder_ / name); }

  TemporaryFolder folder_;
  const std::string model_ = write_small_model(folder_ / "small.safetensors");
};

TEST_F(Generate, TheSameParametersGiveTheSameBytes) {
  const Arguments options = {"--class", "red-star", "-n", "3", "--seed", "7", "--sampler", "ddpm"};
  for (const char* name : {"a.png", "b.png"}) {
    Arguments all = options;
    all.insert(all.end(), {"-o", name});
    EXPECT_TRUE(succeeded(generate(all)));
  }
  EXPECT_EQ(files().size(), 6u);
  for (const int i : {1, 2, 3})
    EXPECT_EQ(bytes(fmt::format("a-000{}.png", i)), bytes(fmt::format("b-000{}.png", i)));
  EXPECT_NE(bytes("a-0001.png"), bytes("a-0002.png"));
}

TEST_F(Generate, OpenMpMayGiveFewerThreadsThanItSays) {
  const Arguments command = {"generate", "--model", model_, "--steps", "2", "--seed", "7", "-o"};
  const auto painted = [&](const char* name, const std::map<std::string, std::string>& environment) {
    Arguments all = command;
    all.push_back(name);
    EXPECT_TRUE(succeeded(run(all, {.folder = folder_.path(), .environment = environment})));
    return read_image(folder_ / name);
  };
  const Image right = painted("one.png", {{"OMP_NUM_THREADS", "1"}});
  EXPECT_EQ(painted("dynamic.png", {{"OMP_NUM_THREADS", "4"}, {"OMP_DYNAMIC", "true"}}), right);
  EXPECT_EQ(painted("limit.png", {{"OMP_NUM_THREADS", "3"}, {"OMP_THREAD_LIMIT", "2"}}), right);
  EXPECT_EQ(painted("levels.png", {{"OMP_NUM_THREADS", "2"}, {"OMP_MAX_ACTIVE_LEVELS", "0"}}), right);
}

TEST_F(Generate, APictureDoesNotDependOnWhatSharesItsBatch) {
  EXPECT_TRUE(succeeded(generate({"-c", "3,4,5", "--seed", "1", "--batch", "3", "-o", "a.png"})));
  EXPECT_TRUE(succeeded(generate({"-c", "3,40,50", "--seed", "1", "--batch", "3", "-o", "b.png"})));
  EXPECT_EQ(bytes("a-0001.png"), bytes("b-0001.png"));
  EXPECT_NE(bytes("a-0002.png"), bytes("b-0002.png"));
}

TEST_F(Generate, PicturesOfSeveralBatchesAreThoseOfOne) {
  EXPECT_TRUE(succeeded(generate({"-n", "5", "--seed", "1", "--dtype", "f32", "--batch", "5", "-o", "a.png"})));
  EXPECT_TRUE(succeeded(generate({"-n", "5", "--seed", "1", "--dtype", "f32", "--batch", "2", "-o", "b.png"})));
  for (int i = 1; i <= 5; ++i) {
    const Image a = read_image(folder_ / fmt::format("a-000{}.png", i));
    const Image b = read_image(folder_ / fmt::format("b-000{}.png", i));
    for (size_t k = 0; k < a.rgb.size(); ++k) ASSERT_NEAR(a.rgb[k], b.rgb[k], 1);
  }
}

TEST_F(Generate, InfoSaysHowAPictureWasPainted) {
  ASSERT_TRUE(
      succeeded(generate({"-c", "Red Star", "--seed", "18446744073709551615", "--cfg", "2.5", "-o", "a.png"})));
  EXPECT_EQ(files(), std::vector<std::string>{"a.png"});
  const auto text = read_image_notes(folder_ / "a.png").text;
  EXPECT_EQ(text.at("class"), "red-star");
  EXPECT_EQ(text.at("class-index"), "3");
  EXPECT_EQ(text.at("seed"), "18446744073709551615");
  EXPECT_EQ(text.at("cfg"), "2.5");
  EXPECT_EQ(text.at("sampler"), "ddim");
  EXPECT_EQ(text.at("model"), "small.safetensors");
  const Result info = run({"info", "a.png"}, {folder_.path()});
  EXPECT_TRUE(succeeded(info));
  for (const auto& [key, value] : text) EXPECT_NE(info.out.find(value), std::string::npos) << key;
}

TEST_F(Generate, TheCommandThatInfoShowsPaintsThePictureAgain) {
  ASSERT_TRUE(succeeded(generate(
      {"-c", "blue-ring", "-n", "2", "--sampler", "dpm++", "--cfg-channels", "all", "-o", "first.png"})));
  const Result info = run({"info", "first-0002.png"}, {folder_.path()});
  std::istringstream words(info.out.substr(info.out.find("linnet generate") + 7));
  Arguments again;
  for (std::string word; words >> word;) again.push_back(word);
  EXPECT_TRUE(succeeded(run(again, {folder_.path()})));
  const Image first = read_image(folder_ / "first-0002.png"), second = read_image(folder_ / "out.png");
  EXPECT_EQ(first.width, second.width);
  for (size_t k = 0; k < first.rgb.size(); ++k) ASSERT_NEAR(first.rgb[k], second.rgb[k], 2);
}

TEST_F(Generate, AModelIsRecordedByTheNameThatItHas) {
  std::filesystem::copy_file(model_, folder_ / "x\ny.safetensors");
  std::filesystem::create_directory(folder_ / "model");
  std::filesystem::copy_file(model_, folder_ / "model/model.safetensors");
  const auto recorded = [&](const char* model) {
    const Result result = run({"generate", "-m", model, "--steps", "1", "-o", "p.png"}, {folder_.path()});
    EXPECT_TRUE(succeeded(result));
    EXPECT_EQ(lines(result.out).size(), 3u) << result.out;
    return read_image_notes(folder_ / "p.png").text.at("model");
  };
  EXPECT_EQ(recorded("./x\ny.safetensors"), "x\ny.safetensors");
  EXPECT_EQ(recorded("./model/."), "model");
  EXPECT_EQ(recorded("model/model.safetensors"), "model.safetensors");
}

TEST_F(Generate, AFileHasOneHashWhateverTheProductsAre) {
  ASSERT_TRUE(
      succeeded(run({"convert", model_, "-o", "8bits.safetensors", "--dtype", "int8"}, {folder_.path()})));
  const auto hash = [&](const std::string& model, const std::string& dtype) {
    EXPECT_TRUE(succeeded(
        run({"generate", "-m", model, "--steps", "1", "--dtype", dtype, "-o", "p.png"}, {folder_.path()})));
    return read_image_notes(folder_ / "p.png").text.at("model-hash");
  };
  EXPECT_EQ(hash(model_, "int8"), hash(model_, "f32"));
  EXPECT_EQ(hash("8bits.safetensors", "int8"), hash("8bits.safetensors", "f32"));
  EXPECT_NE(hash("8bits.safetensors", "f32"), hash(model_, "f32"));
}

TEST_F(Generate, ADrawnSeedIsShownAndGivesThePictureAgain) {
  const Result drawn = generate({"-o", "a.png"});
  ASSERT_TRUE(succeeded(drawn));
  const std::string seed = drawn.out.substr(drawn.out.find("seed ") + 5);
  EXPECT_TRUE(succeeded(generate({"--seed", seed.substr(0, seed.find(';')), "-o", "b.png"})));
  EXPECT_EQ(bytes("a.png"), bytes("b.png"));
}

TEST_F(Generate, ClassesAreCycledThroughAndPicturesNumbered) {
  EXPECT_TRUE(succeeded(generate({"-c", "red-star,blue-ring", "-c", "5", "-n", "4", "-o", "p.png"})));
  EXPECT_EQ(files(), (std::vector<std::string>{"p-0001.png", "p-0002.png", "p-0003.png", "p-0004.png"}));
  const char* classes[] = {"red-star", "blue-ring", "red-ring", "red-star"};
  for (size_t i = 0; i < 4; ++i)
    EXPECT_EQ(read_image_notes(folder_ / fmt::format("p-000{}.png", i + 1)).text.at("class"), classes[i]);
}

TEST_F(Generate, WithoutAClassEveryClassIsPaintedInTurn) {
  EXPECT_TRUE(succeeded(generate({"-n", "3", "-o", "p.png"})));
  EXPECT_EQ(read_image_notes(folder_ / "p-0003.png").text.at("class"), "red-triangle");
}

TEST_F(Generate, AClassMayBeNamedAsEveryClassInTurnIs) {
  DiTConfig config = small_config();
  config.num_classes = 3;
  DiT model(config);
  draw_all(model);
  save_dit(folder_ / "own.safetensors", model, DType::f32, {{"linnet.classes", R"(["a","b","balanced"])"}});
  EXPECT_TRUE(
      succeeded(run({"generate", "-m", "own.safetensors", "--steps", "1", "-c", "balanced", "-o", "p.png"},
                    {folder_.path()})));
  EXPECT_EQ(read_image_notes(folder_ / "p.png").text.at("class"), "balanced");
}

TEST_F(Generate, AGridIsOneSheet) {
  EXPECT_TRUE(succeeded(
      generate({"-n", "5", "--grid", "--columns", "3", "--scale", "2", "--seed", "4", "-o", "s.png"})));
  EXPECT_EQ(files(), std::vector<std::string>{"s.png"});
  const Image sheet = read_image(folder_ / "s.png");
  EXPECT_EQ(sheet.width, 3 * (32 + 4) + 4);
  EXPECT_EQ(sheet.height, 2 * (32 + 4) + 4);
  const auto text = read_image_notes(folder_ / "s.png").text;
  EXPECT_EQ(text.at("classes"), "red-circle,red-square,red-triangle,red-star,red-heart");
  EXPECT_EQ(text.at("count"), "5");
}

TEST_F(Generate, ASheetOfMoreColumnsThanPicturesIsOneRow) {
  EXPECT_TRUE(succeeded(generate({"-n", "2", "--grid", "--columns", "4294967296", "-o", "s.png"})));
  EXPECT_EQ(read_image(folder_ / "s.png").width, 2 * (96 + 4) + 4);
}

TEST_F(Generate, PixelsAreClippedUnlessToldOtherwise) {
  const Arguments options = {"--class", "red-star", "--seed", "7"};
  for (const char* clip : {"auto", "on", "off"}) {
    Arguments all = options;
    all.insert(all.end(), {"--clip", clip, "-o", std::string(clip) + ".png"});
    ASSERT_TRUE(succeeded(generate(all)));
  }
  EXPECT_EQ(bytes("auto.png"), bytes("on.png"));
  EXPECT_NE(read_image(folder_ / "off.png"), read_image(folder_ / "on.png"));
}

TEST_F(Generate, EverySamplerPaints) {
  for (const char* sampler : {"ddpm", "ddim", "dpm++"})
    EXPECT_TRUE(
        succeeded(generate({"--sampler", sampler, "--seed", "1", "-o", std::string(sampler) + ".png"})));
  EXPECT_NE(bytes("ddpm.png"), bytes("ddim.png"));
  EXPECT_NE(bytes("ddim.png"), bytes("dpm++.png"));
}

TEST_F(Generate, LatentsAreThePicturesBeforeRounding) {
  EXPECT_TRUE(
      succeeded(generate({"-n", "3", "--batch", "2", "-o", "p.png", "--latents-out", "l.safetensors"})));
  const Tensor latents = SafetensorsFile::open(folder_ / "l.safetensors").tensor("latents");
  ASSERT_EQ(latents.shape(), (Shape{3, 3, 16, 16}));
  EXPECT_EQ(to_image(latents.rows(2, 3).reshape({3, 16, 16})), read_image(folder_ / "p-0003.png"));
}

TEST_F(Generate, LatentsDoNotTakeThePlaceOfTheModel) {
  const std::string before = bytes("small.safetensors");
  EXPECT_TRUE(
      failed(generate({"-o", "p.png", "--latents-out", "small.safetensors"}), 2, "the file that is read"));
  EXPECT_TRUE(bytes("small.safetensors") == before);
  EXPECT_TRUE(files().empty());
}

TEST_F(Generate, GivenNoiseReplacesTheSeeds) {
  Generator generator(5);
  write_safetensors(folder_ / "noise.safetensors", {{"noise", generator.normal({2, 3, 16, 16})}});
  EXPECT_TRUE(succeeded(generate({"-n", "2", "--noise", "noise.safetensors", "--seed", "1", "-o", "a.png"})));
  EXPECT_TRUE(succeeded(generate({"-n", "2", "--noise", "noise.safetensors", "--seed", "2", "-o", "b.png"})));
  EXPECT_EQ(read_image(folder_ / "a-0002.png"), read_image(folder_ / "b-0002.png"));
  EXPECT_TRUE(
      failed(generate({"-n", "3", "--noise", "noise.safetensors", "-o", "c.png"}), 1, "(3, 3, 16, 16)"));
  EXPECT_TRUE(failed(generate({"--noise", model_, "-o", "c.png"}), 1, "noise"));
}

TEST_F(Generate, ZerosBeforeANumberMeanNothing) {
  EXPECT_TRUE(succeeded(generate({"-n", "09", "--batch", "+010", "--seed", "1", "-o", "a.png"})));
  EXPECT_EQ(files().size(), 9u);
  EXPECT_TRUE(succeeded(run({"generate", "-m", model_, "--steps", "010", "-o", "b.png"}, {folder_.path()})));
  EXPECT_EQ(read_image_notes(folder_ / "b.png").text.at("steps"), "10");
}

TEST_F(Generate, ATextThatAJpegCannotHoldIsSaidBeforePainting) {
  DiTConfig config = small_config();
  config.num_classes = 3;
  DiT model(config);
  draw_all(model);
  const std::string name(70'000, 'x');
  save_dit(folder_ / "long.safetensors", model, DType::f32,
           {{"linnet.classes", fmt::format(R"(["a","{}","c"])", name)}});
  const auto paint = [&](const Arguments& more) {
    Arguments all = {"generate", "-m", "long.safetensors", "--steps", "1", "-o"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_.path()});
  };
  for (const Arguments& output :
       {Arguments{"p.jpg", "-c", "0,1", "--latents-out", "l"}, Arguments{"s.jpg", "-c", "0,1", "--grid"},
        Arguments{"d/", "--format", "jpg", "-n", "3"}})
    EXPECT_TRUE(failed(paint(output), 1, "a JPEG cannot hold 70")) << output[0];
  const auto sheet_of = [&](const char* columns) {
    return paint({"s.jpg", "-c", "0,1", "--grid", "--columns", columns}).err;
  };
  EXPECT_NE(sheet_of("1"), sheet_of("1000")) << "the columns are a part of the text";
  EXPECT_EQ(files(), (std::vector<std::string>{"d", "long.safetensors"}));
  EXPECT_TRUE(succeeded(paint({"p.jpg", "-c", "0"})));
  EXPECT_TRUE(succeeded(paint({"p.png", "-c", "1"})));
}

TEST_F(Generate, ASheetThatIsTooLargeForAWebpIsSaidBeforePainting) {
  const Result sheet = generate({"-n", "164", "--grid", "--columns", "1", "-o", "s.webp"});
  EXPECT_TRUE(failed(sheet, 1, "s.webp: a WebP has at most 16383 pixels a side, not 104 x 16404"));
  EXPECT_EQ(sheet.out, "");
}

TEST_F(Generate, ANameThatIsTooLongIsSaidBeforePainting) {
  for (const Arguments& output : {Arguments{"-o", std::string(244, 'x') + ".png"},
                                  Arguments{"-o", std::string(240, 'x') + ".png", "-n", "2"}}) {
    const Result result = generate(output);
    EXPECT_TRUE(failed(result, 1, ": File name too long"));
    EXPECT_EQ(result.out, "");
  }
}

TEST_F(Generate, AModelOfLatentsWritesLatentsOnly) {
  const std::string model = data_file("reference/dit_lit.model.safetensors");
  const Arguments common = {"generate", "--model", model, "--steps", "2"};
  const auto with = [&](const Arguments& more) {
    Arguments all = common;
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_.path()});
  };
  EXPECT_TRUE(failed(with({"-o", "p.png"}), 2, "--latents-out"));
  EXPECT_TRUE(succeeded(with({"--latents-out", "l.safetensors", "-n", "2"})));
  EXPECT_EQ(SafetensorsFile::open(folder_ / "l.safetensors").tensor("latents").shape(), (Shape{2, 4, 8, 8}));
  EXPECT_EQ(files(), std::vector<std::string>{"l.safetensors"});
}

TEST_F(Generate, GuidanceNeedsAModelThatDroppedClasses) {
  DiTConfig config = small_config();
  config.class_dropout = 0;
  write_small_model(folder_ / "undropped.safetensors", config);
  const Arguments common = {"generate", "-m", "undropped.safetensors", "--steps", "2", "-o", "p.png", "--cfg"};
  Arguments guided = common, plain = common;
  guided.push_back("2");
  plain.push_back("1");
  EXPECT_TRUE(failed(run(guided, {folder_.path()}), 2, "guidance"));
  EXPECT_TRUE(succeeded(run(plain, {folder_.path()})));
}

TEST_F(Generate, AConvertedModelPaintsAsTheOriginal) {
  EXPECT_TRUE(succeeded(generate({"--seed", "1", "--dtype", "f32", "-o", "a.png"})));
  EXPECT_TRUE(succeeded(run({"convert", model_, "-o", "f32.safetensors", "--no-positions"}, {folder_.path()})));
  EXPECT_TRUE(succeeded(
      run({"generate", "-m", "f32.safetensors", "--steps", "3", "--seed", "1", "--dtype", "f32", "-o", "b.png"},
          {folder_.path()})));
  EXPECT_EQ(read_image(folder_ / "a.png"), read_image(folder_ / "b.png"));
  for (const char* dtype : {"bf16", "f16"}) {
    EXPECT_TRUE(
        succeeded(run({"convert", model_, "-o", "half.safetensors", "--dtype", dtype}, {folder_.path()})));
    EXPECT_LT(std::filesystem::file_size(folder_ / "half.safetensors"),
              std::filesystem::file_size(model_) * 6 / 10);
    for (const std::string& products : product_names())
      EXPECT_TRUE(succeeded(
          run({"generate", "-m", "half.safetensors", "--steps", "2", "--dtype", products, "-o", "c.png"},
              {folder_.path()})));
  }
}

TEST_F(Generate, ProductsThatThisProcessorLacksAreRefused) {
  if (ops::have_bf16_products()) GTEST_SKIP() << "not run: this processor has products in bf16";
  EXPECT_TRUE(failed(generate({"--dtype", "bf16", "-o", "p.png"}), 2,
                     "this processor has no products in bf16, which on x86 take AVX-512: choose f32 or auto"));
  EXPECT_TRUE(files().empty());
}

TEST_F(Generate, TheBuiltInModelPaintsOrSaysThatThereIsNone) {
  const Result result = run({"generate", "--steps", "2", "-o", "p.png"}, {folder_.path()});
  if (result.code == 0)
    EXPECT_EQ(files(), std::vector<std::string>{"p.png"});
  else
    EXPECT_TRUE(failed(result, 1, "without a built-in model"));
}

TEST_F(Generate, ItsHelpIsSortedAndFitsIntoEightyColumns) {
  const Result help = run({"generate", "--help"});
  EXPECT_TRUE(succeeded(help));
  size_t before = 0;
  for (const char* heading :
       {"\nWhat to paint:\n", "\nTexts:\n", "\nSampling:\n", "\nOutput:\n", "\nWhere and how fast:\n"}) {
    const size_t at = help.out.find(heading);
    ASSERT_NE(at, std::string::npos) << heading << help.out;
    EXPECT_GT(at, before) << heading;
    before = at;
  }
  for (const std::string& line : lines(help.out)) EXPECT_LE(line.size(), 80u) << line;
}

TEST_F(Generate, CtrlCEndsItWith130AndNothingHalfWritten) {
  Process process({"generate", "-m", model_, "--steps", "1000", "-n", "512", "--batch", "1", "-o", "p.png",
                   "--grid", "--latents-out", "l.safetensors"},
                  {folder_.path()});
  process.wait_for("seed ");
  ::usleep(100'000);
  process.send(SIGINT);
  const Result result = process.wait();
  EXPECT_EQ(result.code, 130);
  EXPECT_EQ(result.err, "linnet: interrupted\n");
  EXPECT_TRUE(files().empty());
}

TEST_F(Generate, ACtrlCThatItsStarterIgnoresIsIgnored) {
  Process process({"generate", "-m", model_, "--steps", "300", "-n", "4", "--batch", "1", "-o", "p.png"},
                  {folder_.path(), [] { std::signal(SIGINT, SIG_IGN); }});
  process.wait_for("p-0001.png");
  process.send(SIGINT);
  EXPECT_TRUE(succeeded(process.wait()));
  EXPECT_EQ(files().size(), 4u);
}

}  // namespace
}  // namespace linnet::test
