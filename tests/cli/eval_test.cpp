// linnet eval: a classifier is trained, two folders are compared, and what is wrong is said.
#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/safetensors.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

class Comparing : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* seed : {"1", "2"})
      ASSERT_TRUE(succeeded(linnet(
          {"data", "shapes", std::string("shapes") + seed, "--count", "64", "--size", "16", "--seed", seed})));
    ASSERT_EQ(train("c", {"--steps", "5"}).code, 0);
  }
  Result linnet(const Arguments& arguments) const { return run(arguments, {folder_.path()}); }
  Result train(const std::string& output, const Arguments& more) const {
    Arguments all = {"eval", "train-classifier", "shapes1", "-o",      output, "--size",
                     "16",   "--width",          "8",       "--depth", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return linnet(all);
  }
  double distance(const std::string& samples, const std::string& reference, const Arguments& more = {}) const {
    Arguments all = {"eval", samples, reference, "--features", "c", "--json", "result.json"};
    all.insert(all.end(), more.begin(), more.end());
    const Result result = linnet(all);
    EXPECT_TRUE(succeeded(result));
    EXPECT_NE(result.out.find("Fréchet distance"), std::string::npos) << result.out;
    return nlohmann::json::parse(contents(folder_ / "result.json")).at("frechet_distance").get<double>();
  }

  TemporaryFolder folder_;
};

TEST_F(Comparing, AFolderIsLikeItselfAndLessLikeAnother) {
  EXPECT_LT(distance("shapes1", "shapes1"), 1e-9);
  EXPECT_GT(distance("shapes1", "shapes2"), 1e-6);
  const auto json = nlohmann::json::parse(contents(folder_ / "result.json"));
  EXPECT_EQ(json.at("samples"), 64);
  EXPECT_EQ(json.at("reference"), 64);
  EXPECT_EQ(json.at("features"), 8);
}

TEST_F(Comparing, LinkedFoldersAreLookedAtOnce) {
  std::filesystem::create_directories(folder_ / "links");
  for (const char* name : {"one", "two"})
    std::filesystem::create_directory_symlink(folder_ / "shapes1", folder_ / "links" / name);
  std::filesystem::create_directory_symlink(folder_ / "links", folder_ / "shapes1/back");
  EXPECT_LT(distance("links", "shapes1"), 1e-9);
  EXPECT_EQ(nlohmann::json::parse(contents(folder_ / "result.json")).at("samples"), 64);
}

// A distance over what happens to be there would be another one.
TEST_F(Comparing, APictureThatALinkDoesNotLeadToEndsIt) {
  std::filesystem::create_symlink("nowhere", folder_ / "shapes1/x.png");
  EXPECT_TRUE(
      failed(linnet({"eval", "shapes1", "shapes2", "--features", "c"}), 1, "cannot open shapes1/x.png"));
}

TEST_F(Comparing, OneFileIsNotForTwo) {
  EXPECT_TRUE(failed(
      linnet({"eval", "shapes1", "shapes2", "--features", "c", "--json", "s", "--save-statistics", "./s"}), 2,
      "--json and --save-statistics name the same file"));
}

TEST_F(Comparing, SavedStatisticsStandForTheFolder) {
  const double from_folder = distance("shapes1", "shapes2", {"--save-statistics", "s.safetensors"});
  EXPECT_EQ(distance("shapes1", "s.safetensors"), from_folder);
  ASSERT_EQ(train("other", {"--steps", "5", "--seed", "9"}).code, 0);
  EXPECT_TRUE(
      failed(linnet({"eval", "shapes1", "s.safetensors", "--features", "other"}), 1, "another classifier"));
}

// Which is seen by what is said of two wrong sets: not of the picture that cannot be looked at.
TEST_F(Comparing, AWrongReferenceIsSaidBeforeTheSamplesAreLookedAt) {
  std::filesystem::create_directories(folder_ / "empty");
  std::filesystem::copy(folder_ / "shapes1", folder_ / "broken", std::filesystem::copy_options::recursive);
  std::ofstream(folder_ / "broken/a.png") << "no picture";
  for (const auto& [reference, sentence] : {std::pair("none", "cannot read none"),
                                            {"empty", "no PNG, JPEG or WebP picture in empty"},
                                            {"c", "no statistics"},
                                            {"shapes1/red-star", "needs more than 8"}})
    EXPECT_TRUE(failed(linnet({"eval", "broken", reference, "--features", "c"}), 1, sentence));
  EXPECT_TRUE(failed(linnet({"eval", "broken", "shapes1", "--features", "c"}), 1, "a.png"));
}

TEST_F(Comparing, KilledMidwayItGivesTheSameWhenItIsStartedAgain) {
  using Clock = std::chrono::steady_clock;
  const Arguments compare = {"eval",   "shapes1", "shapes2",           "--features", "c",
                             "--json", "json",    "--save-statistics", "statistics"};
  const auto start = Clock::now();
  ASSERT_TRUE(succeeded(linnet(compare)));
  const auto whole = Clock::now() - start;
  const std::string json = contents(folder_ / "json"), statistics = contents(folder_ / "statistics");
  for (int eighths = 1; eighths < 8; ++eighths) {
    for (const char* file : {"json", "statistics"}) std::filesystem::remove(folder_ / file);
    Process process(compare, {folder_.path()});
    std::this_thread::sleep_for(whole * eighths / 8);
    process.send(SIGKILL);
    process.wait();
    for (const auto& [file, expected] : {std::pair("json", json), {"statistics", statistics}})
      EXPECT_TRUE(!std::filesystem::exists(folder_ / file) || contents(folder_ / file) == expected) << file;
    ASSERT_TRUE(succeeded(linnet(compare)));
    EXPECT_EQ(contents(folder_ / "json"), json);
    EXPECT_EQ(contents(folder_ / "statistics"), statistics);
  }
}

TEST_F(Comparing, TrainingAClassifierTellsItsAccuracy) {
  const Result result = train("d", {"--steps", "2", "--held-out", "shapes2"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("8 features, 64 classes"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("% of the pictures in shapes2 are named rightly"), std::string::npos) << result.out;
}

TEST_F(Comparing, TheJudgeStillJudges) {
  const Result result = linnet({"eval", "shapes", "shapes1"});
  EXPECT_TRUE(succeeded(result));
  EXPECT_NE(result.out.find("64 pictures: "), std::string::npos) << result.out;
}

TEST_F(Comparing, WrongInputIsSaidInOneSentence) {
  std::filesystem::create_directories(folder_ / "empty");
  write_small_model(folder_ / "dit.safetensors");
  const auto before = listing(folder_.path());
  EXPECT_TRUE(failed(linnet({"eval"}), 2, "linnet eval SAMPLES REFERENCE"));
  EXPECT_TRUE(failed(linnet({"eval", "shapes1"}), 2, "SAMPLES REFERENCE"));
  EXPECT_TRUE(failed(linnet({"eval", "shapes1", "shapes2"}), 2, "--features"));
  EXPECT_TRUE(
      failed(linnet({"eval", "shapes1", "shapes2", "--featurs", "c"}), 2, "did you mean \"--features\"?"));
  EXPECT_TRUE(failed(linnet({"eval", "empty", "shapes2", "--features", "c"}), 1,
                     "no PNG, JPEG or WebP picture in empty"));
  EXPECT_TRUE(failed(linnet({"eval", "none", "shapes2", "--features", "c"}), 1, "cannot read none"));
  EXPECT_TRUE(
      failed(linnet({"eval", "shapes1/red-star", "shapes2", "--features", "c"}), 1, "needs more than 8"));
  EXPECT_TRUE(failed(linnet({"eval", "shapes1", "c", "--features", "c"}), 1, "no statistics"));
  EXPECT_TRUE(
      failed(linnet({"eval", "shapes1", "shapes2", "--features", "dit.safetensors"}), 1, "no classifier"));
  EXPECT_TRUE(failed(linnet({"eval", "shapes1", "shapes2", "--features", "c", "--json", "none/j"}), 1, "none"));
  EXPECT_TRUE(failed(linnet({"eval", "shapes1", "shapes2", "--features", "c", "--save-statistics", "./c"}), 2,
                     "it is the file that is read"));
  EXPECT_TRUE(failed(linnet({"eval", "--json", "j", "shapes", "shapes1"}), 2, "no use of --json before it"));
  EXPECT_TRUE(failed(linnet({"eval", "shapes1", "scenes", "shapes2"}), 2, "no use of samples before it"));
  EXPECT_TRUE(failed(train("e", {"--steps", "0"}), 2, "--steps"));
  EXPECT_TRUE(failed(train("e", {"--patch", "5"}), 2, "patch_size must divide input_size"));
  EXPECT_TRUE(failed(train("e", {"--held-out", "empty"}), 1, "empty"));
  EXPECT_TRUE(failed(train("none/e", {}), 1, "none"));
  EXPECT_EQ(listing(folder_.path()), before) << "something was left behind";
}

class WithInception : public testing::Test {
 protected:
  static void SetUpTestSuite() {  // a hundred megabytes, once
    folder = std::make_unique<TemporaryFolder>();
    write_inception(*folder / "inception");
    for (const char* seed : {"1", "2"})
      ASSERT_TRUE(succeeded(
          linnet({"data", "shapes", std::string("s") + seed, "--count", "8", "--size", "24", "--seed", seed})));
  }
  static void TearDownTestSuite() { folder.reset(); }
  static Result linnet(const Arguments& arguments) { return run(arguments, {folder->path()}); }

  static inline std::unique_ptr<TemporaryFolder> folder;
};

TEST_F(WithInception, GivesTheFiguresOfAdmsSuite) {
  const Result result =
      linnet({"eval", "s1", "s2", "--inception", "inception", "--json", "r.json", "--save-statistics", "v"});
  ASSERT_TRUE(succeeded(result));
  EXPECT_NE(result.out.find("8 pictures in s1 against 8 pictures in s2"), std::string::npos) << result.out;
  const auto json = nlohmann::json::parse(contents(*folder / "r.json"));
  for (const char* key : {"fid", "sfid"}) EXPECT_GT(json.at(key).get<double>(), 0) << key;
  EXPECT_GE(json.at("inception_score").get<double>(), 1);
  for (const char* key : {"precision", "recall"}) EXPECT_LE(json.at(key).get<double>(), 1) << key;

  ASSERT_TRUE(succeeded(linnet({"eval", "s1", "v", "--inception", "inception", "--json", "again.json"})));
  EXPECT_EQ(contents(*folder / "r.json"), contents(*folder / "again.json"));
  ASSERT_TRUE(succeeded(linnet({"eval", "v", "v", "--inception", "inception", "--json", "same.json"})));
  const auto same = nlohmann::json::parse(contents(*folder / "same.json"));
  EXPECT_LT(same.at("fid").get<double>(), 1e-6 * json.at("fid").get<double>());
  EXPECT_EQ(same.at("precision"), 1);
}

// The reference is looked at first, as its statistics may be wanted alone.
TEST_F(WithInception, WrongSamplesAreSaidBeforeTheReferenceIsLookedAt) {
  for (const char* name : {"empty", "broken", "alone"}) std::filesystem::create_directories(*folder / name);
  for (const char* name : {"a.png", "b.png"}) std::ofstream(*folder / "broken" / name) << "no picture";
  std::ofstream(*folder / "alone/a.png") << "no picture";
  std::ofstream(*folder / "text.npz") << "no arrays";
  std::filesystem::copy(LINNET_TEST_DATA "/npz/numbers.npz", *folder / "numbers.npz");
  for (const auto& [samples, sentence] : {std::pair("none", "cannot read none"),
                                          {"none.npz", "none.npz"},
                                          {"text.npz", "text.npz"},
                                          {"numbers.npz", "neither pictures"},
                                          {"empty", "no PNG, JPEG or WebP picture in empty"},
                                          {"alone", "alone holds one picture"},
                                          {"inception", "not what Inception saw"}})
    EXPECT_TRUE(failed(linnet({"eval", samples, "broken", "--inception", "inception"}), 1, sentence));
  EXPECT_TRUE(failed(linnet({"eval", "s1", "broken", "--inception", "inception"}), 1, "broken/"));
}

TEST_F(WithInception, OfThreePicturesPrecisionAndRecallAreLeftOut) {
  std::filesystem::create_directories(*folder / "three");
  int64_t copied = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(*folder / "s2"))
    if (entry.path().extension() == ".png" && copied < 3)
      std::filesystem::copy(entry.path(), *folder / fmt::format("three/{}.png", copied++));
  const Result result = linnet({"eval", "three", "s1", "--inception", "inception", "--json", "three.json"});
  ASSERT_TRUE(succeeded(result));
  EXPECT_NE(result.out.find("Precision and recall are left out: they need more than 3 pictures"),
            std::string::npos)
      << result.out;
  const auto json = nlohmann::json::parse(contents(*folder / "three.json"));
  EXPECT_GT(json.at("fid").get<double>(), 0);
  EXPECT_TRUE(json.at("precision").is_null() && json.at("recall").is_null());
}

TEST_F(WithInception, ForwardWritesItsFeatures) {
  write_safetensors(*folder / "x", {{"sample", Generator(1).normal({2, 3, 20, 30})}});
  ASSERT_TRUE(succeeded(linnet({"forward", "inception", "x", "-o", "features", "--part", "inception"})));
  const auto features = SafetensorsFile::open(*folder / "features");
  for (const int64_t size : {64, 192, 768, 2048})
    EXPECT_EQ(features.tensor(std::to_string(size)).shape(), (Shape{2, size}));
  EXPECT_EQ(features.tensor("spatial").shape(), (Shape{2, 2023}));
  EXPECT_TRUE(
      failed(linnet({"forward", "inception", "features", "-o", "y", "--part", "inception"}), 1, "sample"));
}

TEST_F(WithInception, WrongUsesAreRefused) {
  EXPECT_TRUE(failed(linnet({"eval", "s1", "s2"}), 2, "--inception"));
  EXPECT_TRUE(failed(linnet({"eval", "s1", "s2", "--inception", "inception", "--features", "inception"}), 2,
                     "--features"));
  EXPECT_TRUE(failed(linnet({"eval", "s1", "s2", "--inception", "none"}), 1, "none"));
  EXPECT_TRUE(failed(linnet({"eval", "s1", "s2", "--inception", "s1"}), 1, "s1"));
  write_safetensors(*folder / "dit", {{"fc.weight", Tensor::zeros({2})}});
  EXPECT_TRUE(failed(linnet({"eval", "s1", "s2", "--inception", "dit"}), 1, "Conv2d_1a_3x3.conv.weight"));
  EXPECT_TRUE(failed(linnet({"eval", "none", "s2", "--inception", "inception"}), 1, "none"));
  EXPECT_TRUE(failed(linnet({"eval", "s1", "dit", "--inception", "inception"}), 1, "not what Inception saw"));
}

}  // namespace
}  // namespace linnet::test
