// The judge of scenes: right about what is rendered, and about what is not.
#include "eval/scenes_judge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

// Of 200 held-out pictures of each size.
TEST(ScenesJudge, FindsRenderedScenesRight) {
  for (const auto& [size, least] : {std::pair{64, 0.97}, {128, 0.99}}) {
    SceneScore score;
    for (int64_t i = 0; i < 200; ++i) {
      const CaptionedScene scene = captioned_scene(77, i, i % 2 == 1 ? SceneSet::held_out : SceneSet::training);
      add(score, judge_scene(render(scene.objects, size), scene.description), scene.description);
    }
    EXPECT_GE(static_cast<double>(score.right), least * 200) << size;
    EXPECT_EQ(score.count, 200);
  }
}

// Each pixel the mean of the nine about it, as a model that is not quite sure of its edges paints.
Image blurred(const Image& image) {
  Image result = image;
  const auto at = [&](int64_t x, int64_t y, int64_t c) {
    x = std::clamp<int64_t>(x, 0, image.width - 1);
    y = std::clamp<int64_t>(y, 0, image.height - 1);
    return static_cast<int>(image.rgb[static_cast<size_t>((y * image.width + x) * 3 + c)]);
  };
  for (int64_t i = 0; i < image.width * image.height * 3; ++i) {
    const int64_t c = i % 3, x = i / 3 % image.width, y = i / 3 / image.width;
    int sum = 0;
    for (int64_t dy = -1; dy <= 1; ++dy)
      for (int64_t dx = -1; dx <= 1; ++dx) sum += at(x + dx, y + dy, c);
    result.rgb[static_cast<size_t>(i)] = static_cast<uint8_t>((sum + 4) / 9);
  }
  return result;
}

TEST(ScenesJudge, SoftEdgesAreNoFault) {
  SceneScore score;
  for (int64_t i = 0; i < 200; ++i) {
    const CaptionedScene scene = captioned_scene(78, i, SceneSet::held_out);
    add(score, judge_scene(blurred(render(scene.objects, 64)), scene.description), scene.description);
  }
  EXPECT_GE(score.right, 190);
}

TEST(ScenesJudge, ADifferentSentenceIsWrong) {
  Generator generator(8);
  const Description asked = *description_from("two red stars above a blue ring");
  const Image image = render(random_scene(asked, generator), 96);
  ASSERT_TRUE(judge_scene(image, asked).right());
  const auto verdict = [&](const char* text) { return judge_scene(image, *description_from(text)); };
  EXPECT_FALSE(verdict("two red stars below a blue ring").right());
  EXPECT_TRUE(verdict("two red stars below a blue ring").colours);
  EXPECT_FALSE(verdict("two green stars above a blue ring").colours);
  EXPECT_TRUE(verdict("two green stars above a blue ring").shapes);
  EXPECT_FALSE(verdict("a red star above a blue ring").shapes);
  EXPECT_FALSE(verdict("two red stars").shapes);
  EXPECT_FALSE(verdict("two red hearts above a blue ring").shapes);
  EXPECT_TRUE(verdict("two red stars and a blue ring").right());
  EXPECT_FALSE(judge_scene(blank_image(64, 64, 30, 30, 30), asked).right());
}

TEST(ScenesJudge, SizesAreThoseAmongSoManyObjects) {
  Generator generator(9);
  const Description asked = *description_from("a small red star left of a large blue ring");
  const Image image = render(random_scene(asked, generator), 96);
  const auto verdict = [&](const char* text) { return judge_scene(image, *description_from(text)); };
  EXPECT_TRUE(judge_scene(image, asked).right());
  EXPECT_TRUE(verdict("a red star left of a blue ring").right());
  EXPECT_FALSE(verdict("a large red star left of a large blue ring").sizes);
  EXPECT_TRUE(verdict("a large red star left of a large blue ring").colours);
  EXPECT_FALSE(verdict("a small red star left of a small blue ring").right());
}

TEST(ScenesJudge, ScoresAFolderByItsCaptions) {
  const TemporaryFolder folder;
  write_scenes(folder / "s", 40, 96, 6, SceneSet::training);
  const SceneScore score = score_scenes(folder / "s");
  EXPECT_EQ(score.count, 40);
  EXPECT_GE(score.right, 38);
  EXPECT_NE(to_json(score).find("\"position\""), std::string::npos);
  // Captions are of files, not of their names alone.
  std::ofstream listing(folder / "both.jsonl");
  for (const char* part : {"a", "b"}) {
    write_scenes(folder / "two" / part, 5, 96, part[0], SceneSet::training);
    std::ifstream lines(folder / "two" / part / "captions.jsonl");
    for (std::string line; std::getline(lines, line);) {
      const size_t at = line.find("\"file\":\"") + 8;
      listing << line.insert(at, std::string(part) + "/") << "\n";
    }
    std::filesystem::remove(folder / "two" / part / "captions.jsonl");
  }
  listing.close();
  std::filesystem::rename(folder / "both.jsonl", folder / "two/captions.jsonl");
  EXPECT_GE(score_scenes(folder / "two").right, 9);
  write_image(folder / "s/other.png", blank_image(32, 32, 0, 0, 0), {{"prompt", "a corgi"}});
  test::expect_refused("\"a corgi\" is no sentence", [&] { score_scenes(folder / "s"); });
}

}  // namespace
}  // namespace linnet
