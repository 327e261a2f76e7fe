#include "train/data.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "io/shapes.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

class FolderData : public testing::Test {
 protected:
  FolderData() { write_data_set(folder.path() / "shapes", 128, 16, 1); }
  TrainConfig config(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> settings = {"data.path=" + (folder.path() / "shapes").string()};
    settings.insert(settings.end(), more.begin(), more.end());
    return parse_train_config(
        "[model]\ninput_size=16\npatch_size=4\nin_channels=3\nhidden_size=16\ndepth=1\nnum_heads=1\n"
        "num_classes=64\n[train]\nbatch=32\n",
        settings);
  }
  TemporaryFolder folder;
};

bool equal(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

TEST_F(FolderData, ABatchIsAFunctionOfTheStep) {
  const auto data = open_data(config());
  const Batch later = data->batch(5), first = data->batch(0), again = data->batch(5);
  EXPECT_TRUE(equal(later.x0, again.x0) && equal(later.noise, again.noise) && equal(later.t, again.t) &&
              equal(later.y, again.y));
  EXPECT_FALSE(equal(later.noise, first.noise));
}

TEST_F(FolderData, AnEpochShowsEveryPictureOnce) {
  const auto data = open_data(config({"model.class_dropout=0.0"}));
  std::multiset<int64_t> seen;
  for (int64_t step = 0; step < 4; ++step) {
    const Tensor labels = data->batch(step).y;
    for (const int64_t label : labels.values<int64_t>()) seen.insert(label);
  }
  for (int64_t label = 0; label < 64; ++label) EXPECT_EQ(seen.count(label), 2u) << label;
}

TEST_F(FolderData, ClassesAreDroppedAtTheGivenRate) {
  const auto data = open_data(config({"model.class_dropout=0.25"}));
  int64_t dropped = 0;
  for (int64_t step = 0; step < 40; ++step) {
    const Tensor labels = data->batch(step).y;
    for (const int64_t label : labels.values<int64_t>()) dropped += label == 64;
  }
  EXPECT_NEAR(static_cast<double>(dropped) / (40 * 32), 0.25, 0.05);
}

TEST_F(FolderData, TimestepsAreUniformOrLogitNormal) {
  const auto mean = [](const BatchSource& data) {
    double sum = 0;
    for (int64_t step = 0; step < 40; ++step) {
      const Tensor timesteps = data.batch(step).t;
      for (const int64_t t : timesteps.values<int64_t>()) sum += static_cast<double>(t);
    }
    return sum / (40 * 32);
  };
  EXPECT_NEAR(mean(*open_data(config())), 499.5, 30);
  // E σ(N(−1, 0.5)) = 0.28
  EXPECT_NEAR(mean(*open_data(config({"train.timesteps=logit_normal", "train.timesteps_mean=-1.0",
                                      "train.timesteps_deviation=0.5"}))),
              280, 15);
}

TEST_F(FolderData, ClassesAreNamedByTheirFolders) {
  const auto names = open_data(config())->class_names();
  ASSERT_EQ(names.size(), 64u);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
}

TEST_F(FolderData, RefusesAModelForOtherClasses) {
  EXPECT_THROW(open_data(config({"model.num_classes=10"})), Error);
}
TEST_F(FolderData, SaysHowLatentsAreGivenForNow) {
  try {
    open_data(config({"model.in_channels=4"}));
    FAIL() << "pictures were taken for latents";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("latents of 4, which for now come only through data.replay"),
              std::string::npos)
        << error.what();
  }
}
TEST_F(FolderData, RefusesAMissingFolder) { EXPECT_THROW(open_data(config({"data.path=/nowhere"})), Error); }

TEST_F(FolderData, ABrokenPictureIsNamed) {
  const auto broken = folder.path() / "shapes" / "red-star" / "broken.png";
  std::fclose(std::fopen(broken.c_str(), "w"));
  const auto data = open_data(config());
  Prefetcher batches(*data, 0);
  try {
    for (int i = 0; i < 8; ++i) batches.next();
    FAIL() << "the broken picture went unnoticed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("broken.png"), std::string::npos);
  }
}

TEST_F(FolderData, ThePrefetcherKeepsTheOrder) {
  const auto data = open_data(config()), again = open_data(config());
  Prefetcher batches(*data, 3);
  for (int64_t step = 3; step < 9; ++step) EXPECT_TRUE(equal(batches.next().noise, again->batch(step).noise));
}

}  // namespace
}  // namespace linnet
