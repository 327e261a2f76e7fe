// linnet eval: a classifier is trained, two folders are compared, and what is wrong is said.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/small_model.h"
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

TEST_F(Comparing, SavedStatisticsStandForTheFolder) {
  const double from_folder = distance("shapes1", "shapes2", {"--save-statistics", "s.safetensors"});
  EXPECT_EQ(distance("shapes1", "s.safetensors"), from_folder);
  ASSERT_EQ(train("other", {"--steps", "5", "--seed", "9"}).code, 0);
  EXPECT_TRUE(
      failed(linnet({"eval", "shapes1", "s.safetensors", "--features", "other"}), 1, "another classifier"));
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
  EXPECT_TRUE(
      failed(linnet({"eval", "empty", "shapes2", "--features", "c"}), 1, "no PNG or JPEG picture in empty"));
  EXPECT_TRUE(failed(linnet({"eval", "none", "shapes2", "--features", "c"}), 1, "cannot read none"));
  EXPECT_TRUE(
      failed(linnet({"eval", "shapes1/red-star", "shapes2", "--features", "c"}), 1, "needs more than 8"));
  EXPECT_TRUE(failed(linnet({"eval", "shapes1", "c", "--features", "c"}), 1, "no statistics"));
  EXPECT_TRUE(
      failed(linnet({"eval", "shapes1", "shapes2", "--features", "dit.safetensors"}), 1, "no classifier"));
  EXPECT_TRUE(failed(linnet({"eval", "shapes1", "shapes2", "--features", "c", "--json", "none/j"}), 1, "none"));
  EXPECT_TRUE(failed(train("e", {"--steps", "0"}), 2, "--steps"));
  EXPECT_TRUE(failed(train("e", {"--patch", "5"}), 2, "patch_size must divide input_size"));
  EXPECT_TRUE(failed(train("e", {"--held-out", "empty"}), 1, "empty"));
  EXPECT_TRUE(failed(train("none/e", {}), 1, "none"));
  EXPECT_EQ(listing(folder_.path()), before) << "something was left behind";
}

}  // namespace
}  // namespace linnet::test
