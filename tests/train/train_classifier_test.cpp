// Training the classifier whose features compare pictures.
#include "train/train_classifier.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "io/shapes.h"
#include "store/parameters.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

class TrainClassifier : public testing::Test {
 protected:
  TrainClassifier() {
    write_data_set(folder_ / "shapes", 128, 16, 1);
    training_.data = (folder_ / "shapes").string();
    training_.model.input_size = 16;
    training_.model.hidden_size = 16;
    training_.model.depth = 1;
    training_.optimizer.steps = 150;
    training_.optimizer.batch = 16;
    training_.optimizer.warmup = 5;
    training_.optimizer.lr = 5e-3;
  }
  std::string trained() const { return fingerprint(nn::all_parameters(*train_classifier(training_).model)); }
  TemporaryFolder folder_;
  ClassifierTraining training_;
};

TEST_F(TrainClassifier, LearnsTheClassesOfTheFolder) {
  std::vector<double> losses;
  const TrainedClassifier result =
      train_classifier(training_, [&](const ClassifierMetrics& m) { losses.push_back(m.loss); });
  ASSERT_EQ(losses.size(), 150u);
  const auto mean = [](auto first) { return std::accumulate(first, first + 10, 0.0) / 10; };
  EXPECT_NEAR(mean(losses.begin()), std::log(64.0), 1);
  EXPECT_LT(mean(losses.end() - 10), mean(losses.begin()) - 1);
  EXPECT_EQ(result.model->config().num_classes, 64);
  EXPECT_EQ(result.class_names.size(), 64u);
  EXPECT_TRUE(std::ranges::is_sorted(result.class_names));
}

TEST_F(TrainClassifier, FollowsTheScheduleOfTheRate) {
  training_.optimizer.steps = 3;
  training_.optimizer.warmup = 0;
  const std::string falling = trained();
  training_.optimizer.schedule = "constant";
  EXPECT_NE(trained(), falling);
}

TEST_F(TrainClassifier, GivesTheAverageOfItsSteps) {
  training_.optimizer.steps = 3;
  training_.optimizer.ema = 0;
  const std::string last = trained();
  training_.optimizer.ema = 0.9;
  EXPECT_NE(trained(), last);
}

TEST_F(TrainClassifier, IsAFunctionOfTheSeed) {
  training_.optimizer.steps = 3;
  const std::string one = trained();
  EXPECT_EQ(trained(), one);
  training_.optimizer.seed = 1;
  EXPECT_NE(trained(), one);
}

TEST_F(TrainClassifier, RefusesAFolderWithoutClasses) {
  training_.data = (folder_ / "shapes/red-star").string();
  EXPECT_THROW(train_classifier(training_), Error);
  training_.data = (folder_ / "nowhere").string();
  EXPECT_THROW(train_classifier(training_), Error);
}

}  // namespace
}  // namespace linnet
