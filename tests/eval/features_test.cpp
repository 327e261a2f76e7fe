// What a classifier sees in folders, and the file that keeps it.
#include "eval/features.h"

#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "eval/pictures.h"
#include "io/image.h"
#include "io/resize.h"
#include "io/safetensors.h"
#include "io/shapes.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

class Features : public testing::Test {
 protected:
  Features() {
    write_data_set(folder_ / "shapes", 64, 16, 1);
    make_classifier("classifier", 1);
  }
  void make_classifier(const std::string& name, uint64_t seed) {
    ClassifierConfig config;
    config.input_size = 16;
    config.hidden_size = 8;
    config.depth = 1;
    Classifier model(config);
    nn::initialize(model, seed);
    const auto names = class_names();
    std::vector<std::string> sorted(names.begin(), names.end());
    std::ranges::sort(sorted);
    save_classifier(folder_ / name, model, sorted);
  }
  LoadedClassifier classifier(const std::string& name = "classifier") {
    return load_classifier(folder_ / name);
  }
  void expect_refused(const std::string& words, const std::function<void()>& body) {
    try {
      body();
      FAIL() << "not refused: " << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  }

  TemporaryFolder folder_;
};

TEST_F(Features, OfEveryPictureAreCounted) {
  int64_t last = 0;
  const auto found =
      folder_statistics(classifier(), folder_ / "shapes", [&](int64_t done, int64_t) { last = done; });
  EXPECT_EQ(found.features.count(), 64);
  EXPECT_EQ(found.features.size(), 8);
  EXPECT_EQ(found.resized, 0);
  EXPECT_EQ(last, 64);
}

TEST_F(Features, APictureThatCannotBeScaledIsNamed) {
  write_image(folder_ / "shapes/thin.png", {3000, 1, std::vector<uint8_t>(9000)});
  expect_refused(folder_ / "shapes/thin.png: a picture cannot be resized to 48000 x 16 pixels",
                 [&] { folder_statistics(classifier(), folder_ / "shapes", {}); });
}

TEST_F(Features, PicturesOfAnotherSizeAreScaled) {
  write_data_set(folder_ / "large", 64, 32, 1);
  const auto large = folder_statistics(classifier(), folder_ / "large");
  EXPECT_EQ(large.resized, 64);
  const auto small = folder_statistics(classifier(), folder_ / "shapes");
  write_data_set(folder_ / "other", 64, 16, 2);
  const auto other = folder_statistics(classifier(), folder_ / "other");
  EXPECT_LT(frechet_distance(small.features, large.features), frechet_distance(small.features, other.features));
}

TEST_F(Features, OfLargerPicturesAreThoseOfTheirCentres) {
  write_data_set(folder_ / "large", 64, 40, 1);
  std::filesystem::create_directory(folder_ / "small");
  for (const auto& path : pictures_in(folder_ / "large"))
    write_image(folder_ / "small" / (path.parent_path().filename().string() + ".png"),
                center_crop(read_image(path), 16));
  const auto large = folder_statistics(classifier(), folder_ / "large").features,
             small = folder_statistics(classifier(), folder_ / "small").features;
  ASSERT_EQ(small.count(), 64);
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(large.mean()[i], small.mean()[i], 1e-6);
}

TEST_F(Features, NeedMorePicturesThanTheyAreWide) {
  expect_refused("holds 1 picture; a Fréchet distance on 8 features needs more than 8",
                 [&] { folder_statistics(classifier(), folder_ / "shapes/red-star"); });
  std::filesystem::create_directories(folder_ / "empty");
  expect_refused("no PNG, JPEG or WebP picture", [&] { folder_statistics(classifier(), folder_ / "empty"); });
  expect_refused("cannot read", [&] { folder_statistics(classifier(), folder_ / "nowhere"); });
}

TEST_F(Features, ABrokenPictureIsNamed) {
  std::ofstream(folder_ / "shapes/red-star/broken.png") << "no picture";
  expect_refused("broken.png", [&] { folder_statistics(classifier(), folder_ / "shapes"); });
}

TEST_F(Features, TheAccuracyIsTheShareNamedRightly) {
  // An untrained classifier guesses.
  const double accuracy = folder_accuracy(classifier(), folder_ / "shapes");
  EXPECT_NEAR(accuracy * 64, std::round(accuracy * 64), 1e-9);
  EXPECT_LT(accuracy, 0.5);
  std::filesystem::rename(folder_ / "shapes/red-star", folder_ / "shapes/red-sun");
  expect_refused("knows no class", [&] { folder_accuracy(classifier(), folder_ / "shapes"); });
}

TEST_F(Features, StatisticsComeBackFromTheirFile) {
  const auto found = folder_statistics(classifier(), folder_ / "shapes").features;
  save_statistics(folder_ / "s", found, classifier());
  const auto again = load_statistics(folder_ / "s", classifier());
  EXPECT_EQ(again.count(), found.count());
  EXPECT_EQ(again.mean(), found.mean());
  EXPECT_LT(frechet_distance(again, found), 1e-12);
}

TEST_F(Features, StatisticsOfAnotherClassifierAreRefused) {
  const auto found = folder_statistics(classifier(), folder_ / "shapes").features;
  save_statistics(folder_ / "s", found, classifier());
  make_classifier("other", 2);
  expect_refused("another classifier's", [&] { load_statistics(folder_ / "s", classifier("other")); });
}

TEST_F(Features, DamagedStatisticsAreRefused) {
  const auto c = classifier();
  const std::string print = c.fingerprint;
  const Tensor mean = Tensor::from<double>(std::vector<double>(8)), small = Tensor::from<double>({1.0});
  const Tensor covariance = Tensor::zeros({8, 8}, DType::f64);
  const auto expect = [&](const std::string& words, const NamedTensors& tensors,
                          const std::map<std::string, std::string>& metadata) {
    write_safetensors(folder_ / "s", tensors, metadata);
    expect_refused(words, [&] { load_statistics(folder_ / "s", c); });
  };
  const auto good = [&](const std::string& count) {
    return std::map<std::string, std::string>{{"linnet.pictures", count}, {"linnet.features", print}};
  };
  const NamedTensors both = {{"mean", mean}, {"covariance", covariance}};
  expect("no statistics", both, {});
  for (const char* count : {"", "x", "1", "-5", "9e9", "99999999999999999999"})
    expect("is no number of pictures", both, good(count));
  expect("\"covariance\" is missing", {{"mean", mean}}, good("9"));
  expect("wants f64 of shape (8)", {{"mean", small}, {"covariance", covariance}}, good("9"));
  expect("is f32", {{"mean", mean.to(DType::f32)}, {"covariance", covariance}}, good("9"));
  Tensor infinite = Tensor::zeros({8, 8}, DType::f64);
  infinite.mutable_data<double>()[3] = std::numeric_limits<double>::infinity();
  expect("are no numbers", {{"mean", mean}, {"covariance", infinite}}, good("9"));
}

}  // namespace
}  // namespace linnet
