// The judge of `shapes`: knows good pictures, refuses bad ones.
#include "eval/shapes_judge.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t unseen_seed = 20250131;

ShapesScore score_renders(int64_t count, int64_t size) {
  ShapesScore score;
  for (int64_t i = 0; i < count; ++i)
    add(score, judge(render(scene_of(unseen_seed, i), size)), static_cast<int>(i % 64));
  return score;
}

// The mean over the square of pixels within `reach`, in both directions or along the rows only.
Image smeared(const Image& image, int64_t reach, bool rows_only) {
  Image result = image;
  const int64_t down = rows_only ? 0 : reach;
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x)
      for (int c = 0; c < 3; ++c) {
        int sum = 0, count = 0;
        for (int64_t j = std::max<int64_t>(y - down, 0); j <= std::min(y + down, image.height - 1); ++j)
          for (int64_t i = std::max<int64_t>(x - reach, 0); i <= std::min(x + reach, image.width - 1);
               ++i, ++count)
            sum += image.at(i, j)[c];
        result.at(x, y)[c] = static_cast<uint8_t>(sum / count);
      }
  return result;
}

Image noisy(const Image& image, float deviation, uint64_t seed) {
  Generator generator(seed);
  std::vector<float> noise(image.rgb.size());
  generator.normal(noise);
  Image result = image;
  for (size_t i = 0; i < noise.size(); ++i)
    result.rgb[i] =
        static_cast<uint8_t>(std::clamp(static_cast<float>(image.rgb[i]) + deviation * noise[i], 0.0f, 255.0f));
  return result;
}

int64_t found_among(int64_t count, const std::function<Image(int64_t)>& picture) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) found += judge(picture(i)).found;
  return found;
}

TEST(ShapesJudge, KnowsEveryClassAt32Pixels) { EXPECT_GE(score_renders(256, 32).accuracy(), 0.99); }
TEST(ShapesJudge, KnowsEveryClassAt64Pixels) { EXPECT_GE(score_renders(128, 64).accuracy(), 0.99); }
TEST(ShapesJudge, KnowsEveryClassAt128Pixels) { EXPECT_GE(score_renders(128, 128).accuracy(), 0.99); }

TEST(ShapesJudge, FindsWhereTheShapeIs) {
  for (int64_t i = 0; i < 64; ++i) {
    const Scene scene = scene_of(unseen_seed, i);
    const Verdict verdict = judge(render(scene, 64));
    EXPECT_NEAR(verdict.cx, scene.cx, 0.01f) << caption(scene);
    EXPECT_NEAR(verdict.cy, scene.cy, 0.01f) << caption(scene);
    EXPECT_NEAR(verdict.radius, scene.radius, 0.01f) << caption(scene);
  }
}

TEST(ShapesJudge, ToleratesALittleGrain) {
  const int64_t found =
      found_among(64, [](int64_t i) { return noisy(render(scene_of(unseen_seed, i), 32), 4, 7); });
  EXPECT_GE(found, 63);
}

TEST(ShapesJudge, RefusesHeavyGrain) {
  EXPECT_EQ(found_among(64, [](int64_t i) { return noisy(render(scene_of(unseen_seed, i), 32), 32, 7); }), 0);
}

TEST(ShapesJudge, RefusesNoise) {
  const auto noise = [](int64_t i) {
    return noisy(blank_image(32, 32, 128, 128, 128), 80, static_cast<uint64_t>(i));
  };
  EXPECT_EQ(found_among(64, noise), 0);
  EXPECT_EQ(found_among(64, [&](int64_t i) { return smeared(noise(i), 2, false); }), 0);
}

TEST(ShapesJudge, RefusesEmptyPictures) {
  const auto empty = [](int64_t i) {
    Scene scene = scene_of(unseen_seed, i);
    scene.cx = 9;
    return render(scene, 32);
  };
  EXPECT_EQ(found_among(64, empty), 0);
}

TEST(ShapesJudge, RefusesBlurredMush) {
  const auto mush = [](int64_t i) {
    return smeared(smeared(render(scene_of(unseen_seed, i), 32), 2, false), 2, false);
  };
  EXPECT_EQ(found_among(64, mush), 0);
}

TEST(ShapesJudge, RefusesSmearedPictures) {
  EXPECT_EQ(found_among(64, [](int64_t i) { return smeared(render(scene_of(unseen_seed, i), 32), 4, true); }),
            0);
}

TEST(ShapesJudge, RefusesTwoShapes) {
  const auto two = [](int64_t i) {
    Scene scene = scene_of(unseen_seed, i);
    scene.radius = 0.2f;
    scene.cx = scene.cy = 0.26f;
    Image image = render(scene, 64);
    scene.cx = scene.cy = 0.74f;
    const Image other = render(scene, 64);
    for (int64_t y = 32; y < 64; ++y) std::copy_n(other.at(0, y), 64 * 3, image.at(0, y));
    return image;
  };
  EXPECT_EQ(found_among(64, two), 0);
}

TEST(ShapesJudge, RefusesColoursWithoutAName) {
  Scene scene = scene_of(unseen_seed, 0);
  scene.fill = {0.5f, 0.5f, 0.5f};
  EXPECT_FALSE(judge(render(scene, 32)).found);
}

TEST(ShapesJudge, SurvivesPicturesOfAnyShape) {
  for (const auto& [width, height] : {std::pair{1, 1}, {1, 300}, {300, 1}, {8, 8}, {300, 9}, {0, 0}})
    EXPECT_FALSE(judge(blank_image(width, height, 200, 10, 10)).found);
}

class ScoreFolder : public testing::Test {
 protected:
  void SetUp() override {
    dir = fs::temp_directory_path() / ("linnet_judge_" + std::to_string(::getpid()) + "_" +
                                       testing::UnitTest::GetInstance()->current_test_info()->name());
  }
  void TearDown() override { fs::remove_all(dir); }

  fs::path dir;
};

TEST_F(ScoreFolder, ReadsWhatWriteDataSetWrote) {
  write_data_set(dir, 128, 32, unseen_seed);
  const ShapesScore score = score_folder(dir);
  EXPECT_EQ(score.count, 128);
  EXPECT_GE(score.correct, 127);
  EXPECT_EQ(score.class_count[9], 2);
  EXPECT_GT(score.mean_iou, 0.95);
}

TEST_F(ScoreFolder, TakesTheClassFromTextOrFileName) {
  fs::create_directories(dir);
  const Image red_star = render(scene_of(unseen_seed, 3), 32);
  for (const char* name : {"0001.png", "0001.jpg", "0001.webp"})
    write_image(dir / name, red_star, {{"class", "red-star"}});
  write_image(dir / "red-star-0002.png", red_star);
  write_image(dir / "blue-star-0003.png", red_star);
  const ShapesScore score = score_folder(dir);
  EXPECT_EQ(score.count, 5);
  EXPECT_EQ(score.correct, 4);
  EXPECT_EQ(score.shape_correct, 5);
  EXPECT_EQ(score.colour_correct, 4);
}

TEST_F(ScoreFolder, NamesAPictureThatSaysNothing) {
  fs::create_directories(dir);
  write_image(dir / "who.png", blank_image(32, 32, 0, 0, 0));
  try {
    (void)score_folder(dir);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("who.png"), std::string::npos);
  }
}

TEST_F(ScoreFolder, AFolderWithoutPicturesIsAnError) {
  EXPECT_THROW(score_folder(dir), Error);
  fs::create_directories(dir);
  EXPECT_THROW(score_folder(dir), Error);
}

}  // namespace
}  // namespace linnet
