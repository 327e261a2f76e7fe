// The procedural data set: names, scenes, rendering, writing it to disk.
#include "io/shapes.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

namespace linnet {
namespace {

namespace fs = std::filesystem;

class ShapesDataSet : public testing::Test {
 protected:
  void SetUp() override {
    dir = fs::temp_directory_path() / ("linnet_shapes_" + std::to_string(::getpid()) + "_" +
                                       testing::UnitTest::GetInstance()->current_test_info()->name());
  }
  void TearDown() override { fs::remove_all(dir); }

  fs::path dir;
};

std::string usage_error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UsageError& error) {
    return error.what();
  }
  return {};
}

TEST(ShapesClasses, AreNamedColourMajor) {
  ASSERT_EQ(class_names().size(), static_cast<size_t>(shapes_class_count));
  EXPECT_EQ(class_names()[0], "red-circle");
  EXPECT_EQ(class_names()[3], "red-star");
  EXPECT_EQ(class_names()[8], "orange-circle");
  for (int i = 0; i < shapes_class_count; ++i) EXPECT_EQ(find_class(class_names()[static_cast<size_t>(i)]), i);
}

TEST(ShapesClasses, AreFoundAsPeopleWriteThem) { EXPECT_EQ(find_class("Red Star"), find_class("red-star")); }

TEST(ShapesClasses, AMistypedNameGetsASuggestion) {
  EXPECT_EQ(usage_error_of([] { find_class("red-satr"); }), "no class \"red-satr\"; did you mean red-star?");
}

TEST(ShapesClasses, AnUnknownNameIsToldWhatThereIs) {
  const std::string message = usage_error_of([] { find_class("elephant"); });
  EXPECT_NE(message.find("purple"), std::string::npos);
  EXPECT_NE(message.find("moon"), std::string::npos);
}

TEST(Scenes, AreAFunctionOfSeedAndIndex) {
  EXPECT_EQ(render(scene_of(5, 17), 32), render(scene_of(5, 17), 32));
  EXPECT_NE(render(scene_of(5, 17), 32), render(scene_of(6, 17), 32));
  EXPECT_NE(render(scene_of(5, 17), 32), render(scene_of(5, 17 + shapes_class_count), 32));
}

TEST(Scenes, KeepTheShapeInsideThePicture) {
  for (int64_t index = 0; index < 640; ++index) {
    const Scene scene = scene_of(3, index);
    Scene without = scene;
    without.cx = 9;
    const Image image = render(scene, 32), background = render(without, 32);
    for (int64_t i = 0; i < 32; ++i)
      for (const auto& [x, y] : {std::pair{i, int64_t{0}}, {i, int64_t{31}}, {int64_t{0}, i}, {int64_t{31}, i}})
        ASSERT_TRUE(std::equal(image.at(x, y), image.at(x, y) + 3, background.at(x, y))) << index;
  }
}

TEST(Scenes, StandOutFromTheirBackground) {
  for (int64_t index = 0; index < 2000; ++index) {
    const Scene scene = scene_of(4, index);
    for (const Rgb& background : {scene.background_from, scene.background_to})
      EXPECT_GT(distance(to_oklab(scene.fill), to_oklab(background)), 0.12f) << index;
  }
}

TEST(Shapes, AreTrueDistancesOutside) {
  for (int shape = 0; shape < shape_count; ++shape)
    for (float angle = 0; angle < 6.3f; angle += 0.1f) {
      const float far = signed_distance(shape, 3 * std::cos(angle), 3 * std::sin(angle));
      const float farther = signed_distance(shape, 3.1f * std::cos(angle), 3.1f * std::sin(angle));
      EXPECT_GT(far, 1.85f);
      EXPECT_NEAR(farther - far, 0.1f, 0.02f) << shape << " at " << angle;
    }
}

TEST(Shapes, AnUnknownOneIsAnError) { EXPECT_THROW(signed_distance(shape_count, 0, 0), Error); }

TEST(Captions, SayWhatIsSeen) {
  Scene scene;
  scene.shape = 3;
  scene.colour = 1;
  scene.cx = 0.4f;
  scene.cy = 0.6f;
  scene.radius = 0.36f;
  EXPECT_EQ(caption(scene), "a large orange star on a dark background, in the lower left");
  scene.cx = scene.cy = 0.5f;
  scene.radius = 0.25f;
  scene.background_from = {1, 1, 1};
  EXPECT_EQ(caption(scene), "a small orange star on a light background, in the centre");
}

TEST_F(ShapesDataSet, IsWrittenAsAFolderAClassWithCaptions) {
  int64_t last = 0;
  write_data_set(dir, 70, 16, 1, [&](int64_t done) { last = done; });
  EXPECT_EQ(last, 70);
  EXPECT_EQ(read_image(dir / "red-star" / "000003.png"), render(scene_of(1, 3), 16));
  std::ifstream lines(dir / "captions.jsonl");
  std::set<std::string> files;
  for (std::string text; std::getline(lines, text);) {
    const auto line = nlohmann::json::parse(text);
    files.insert(line["file"].get<std::string>());
    EXPECT_TRUE(fs::exists(dir / line["file"].get<std::string>()));
    EXPECT_EQ(line["file"].get<std::string>().find(line["class"].get<std::string>()), 0u);
    EXPECT_FALSE(line["caption"].get<std::string>().empty());
  }
  EXPECT_EQ(files.size(), 70u);
}

TEST_F(ShapesDataSet, NeverTouchesAFolderWithFiles) {
  fs::create_directories(dir);
  std::ofstream(dir / "mine.txt") << "x";
  EXPECT_NE(usage_error_of([&] { write_data_set(dir, 10, 32, 1); }).find("not empty"), std::string::npos);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), fs::directory_iterator()), 1);
}

TEST_F(ShapesDataSet, RefusesUnusableSizesAndCounts) {
  for (const int64_t size : {-1, 0, 15, 2049})
    EXPECT_NE(usage_error_of([&] { write_data_set(dir, 10, size, 1); }), "") << size;
  EXPECT_NE(usage_error_of([&] { write_data_set(dir, 0, 32, 1); }), "");
  EXPECT_FALSE(fs::exists(dir));
}

}  // namespace
}  // namespace linnet
