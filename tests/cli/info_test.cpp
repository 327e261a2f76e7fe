// linnet info, forward, eval and data.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/safetensors.h"
#include "io/shapes.h"
#include "support/compare.h"
#include "support/processor.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

bool says(const Result& result, const std::string& text) { return result.out.find(text) != std::string::npos; }

TEST(Info, DescribesAModel) {
  const TemporaryFolder folder;
  const Result result = run({"info", write_small_model(folder / "m.safetensors"), "--tensors"});
  EXPECT_TRUE(succeeded(result));
  for (const char* text : {"LiT (mixer lit), 2 blocks, width 24, 2 heads, 16 tokens", "16x16 in 3 channels",
                           "64: red-circle, red-square", "blocks.1.mlp.fc2.weight", "(24, 96)"})
    EXPECT_TRUE(says(result, text)) << text << "\n" << result.out;
}

TEST(Info, DescribesTensorsThatAreNoModel) {
  const Result result = run({"info", data_file("reference/dit_lit.io.safetensors")});
  EXPECT_TRUE(succeeded(result));
  EXPECT_TRUE(says(result, "no model"));
}

TEST(Info, SaysWhatATextToImageModelAddsToItsAttention) {
  const Result result = run({"info", data_file("reference/pixart_normed.model.safetensors")});
  EXPECT_TRUE(succeeded(result));
  EXPECT_TRUE(says(result, "norms of q and k; keys and values of 2 x 2 tokens as one in 1 of 2 blocks"))
      << result.out;
  EXPECT_FALSE(says(run({"info", data_file("reference/pixart_lit.model.safetensors")}), "attention  "));
}

TEST(Info, FindsNoClassesInAModelOfTexts) {
  for (const std::string& model :
       {data_file("reference/pixart_lit.model.safetensors"), std::string("builtin-text")})
    EXPECT_TRUE(
        failed(run({"info", model, "--find-class", "star"}), 1, "this is a model of texts; it has no classes"));
}

TEST(Info, DescribesAPictureThatSaysNothing) {
  const Result result = run({"info", data_file("images/tiny.png")});
  EXPECT_TRUE(succeeded(result));
  EXPECT_TRUE(says(result, "says nothing"));
}

TEST(Info, ShowsHostileTextEscaped) {
  const TemporaryFolder folder;
  write_image(folder / "p.png", blank_image(4, 4, 0, 0, 0),
              {{"class", "\x1b[2J$(touch x)'\n"}, {"Software", "linnet 0"}});
  const Result result = run({"info", "p.png"}, {folder.path()});
  EXPECT_TRUE(succeeded(result));
  EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
}

class Forward : public testing::TestWithParam<const char*> {};

TEST_P(Forward, AgreesWithTheReference) {
  const TemporaryFolder folder;
  const std::string name = data_file(fmt::format("reference/{}", GetParam()));
  const auto io = SafetensorsFile::open(name + ".io.safetensors");
  for (const std::string& dtype : product_names()) {
    EXPECT_TRUE(succeeded(run({"forward", name + ".model.safetensors", name + ".io.safetensors", "-o",
                               (folder / "out.safetensors").string(), "--dtype", dtype})));
    const auto out = SafetensorsFile::open(folder / "out.safetensors");
    EXPECT_LT(relative_error(out.tensor("out"), io.tensor("out")), dtype == "f32" ? 1e-4 : 2e-2);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Forward,
                         testing::Values("dit_softmax", "dit_linear", "dit_lit", "dit_lit_patch4",
                                         "dit_softmax_odd", "dit_lit_odd", "dit_no_sigma"),
                         [](const auto& instance) { return std::string(instance.param); });

class ForwardInput : public testing::Test {
 protected:
  Result forward(const NamedTensors& tensors) const {
    write_safetensors(folder_ / "in.safetensors", tensors);
    return run({"forward", data_file("reference/dit_lit.model.safetensors"), "in.safetensors", "-o",
                "out.safetensors"},
               {folder_.path()});
  }
  static Tensor classes(int64_t value) { return Tensor::from(std::vector<int64_t>{value, 0}); }

  TemporaryFolder folder_;
  const Tensor x_ = Tensor::zeros({2, 4, 8, 8}), t_ = Tensor::zeros({2});
};

TEST_F(ForwardInput, WholeTimestepsAndTheNullClassAreTaken) {
  EXPECT_TRUE(succeeded(forward({{"x", x_}, {"t", classes(999)}, {"y", classes(5)}})));
}

TEST_F(ForwardInput, MissingTensorsAreNamed) {
  EXPECT_TRUE(failed(forward({{"t", t_}, {"y", classes(0)}}), 1, "'x'"));
  EXPECT_TRUE(failed(forward({{"x", x_}, {"y", classes(0)}}), 1, "'t'"));
  EXPECT_TRUE(failed(forward({{"x", x_}, {"t", t_}}), 1, "'y'"));
}

TEST_F(ForwardInput, WrongShapesTypesAndClassesAreNamed) {
  EXPECT_TRUE(
      failed(forward({{"x", Tensor::zeros({2, 3, 8, 8})}, {"t", t_}, {"y", classes(0)}}), 1, "(n, 4, 8, 8)"));
  EXPECT_TRUE(failed(forward({{"x", Tensor::zeros({0, 4, 8, 8})}, {"t", t_}, {"y", classes(0)}}), 1, "'x'"));
  EXPECT_TRUE(failed(forward({{"x", x_}, {"t", Tensor::zeros({3})}, {"y", classes(0)}}), 1, "'t' has shape"));
  EXPECT_TRUE(failed(forward({{"x", x_}, {"t", t_}, {"y", t_}}), 1, "not i64"));
  EXPECT_TRUE(failed(forward({{"x", x_}, {"t", t_}, {"y", classes(6)}}), 1, "class 6"));
  EXPECT_TRUE(failed(forward({{"x", x_}, {"t", t_}, {"y", classes(-1)}}), 1, "class -1"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.safetensors"));
}

TEST(Eval, FreshRendersShowWhatTheyShould) {
  const TemporaryFolder folder;
  ASSERT_EQ(run({"data", "shapes", "d", "--count", "192", "--size", "32"}, {folder.path()}).code, 0);
  const Result result = run({"eval", "shapes", "d", "--json", "score.json"}, {folder.path()});
  EXPECT_TRUE(succeeded(result));
  EXPECT_TRUE(says(result, "192 pictures"));
  const auto score = nlohmann::json::parse(contents(folder / "score.json"));
  EXPECT_EQ(score.at("count"), 192);
  EXPECT_GE(score.at("accuracy").get<double>(), 0.99);
  EXPECT_EQ(score.at("classes").size(), 64u);
}

TEST(Eval, AFolderWithoutPicturesIsRefused) {
  const TemporaryFolder folder;
  EXPECT_TRUE(failed(run({"eval", "shapes", folder.path().string()}), 1, "no PNG, JPEG or WebP"));
  EXPECT_TRUE(failed(run({"eval", "shapes", (folder / "none").string()}), 1, "none"));
}

TEST(Data, AFullFolderIsRefusedAndLeftAlone) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "d/mine");
  EXPECT_TRUE(failed(run({"data", "shapes", "d", "--count", "4"}, {folder.path()}), 2, "not empty"));
  EXPECT_EQ(listing(folder / "d"), std::vector<std::string>{"mine"});
}

}  // namespace
}  // namespace linnet::test
