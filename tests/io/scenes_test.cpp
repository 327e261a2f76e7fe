// Scenes and their sentences.
#include "io/scenes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

TEST(Sentences, AreReadAsTheyAreWritten) {
  Generator generator(1);
  for (int i = 0; i < 3000; ++i) {
    const Description description = random_description(generator);
    EXPECT_EQ(description_from(sentence(description)), description) << sentence(description);
  }
  EXPECT_EQ(sentence({{{6, 1, 1}, {3, 0, 2}}, Relation::left}), "an orange cross left of two red stars");
  EXPECT_EQ(sentence({{{6, 5, 3}}, Relation::beside}), "three blue crosses");
  EXPECT_EQ(sentence({{{6, 1, 1, ObjectSize::small}, {3, 0, 1, ObjectSize::large}}, Relation::above}),
            "a small orange cross above a large red star");
  EXPECT_EQ(description_from("  A Red STAR and one large blue ring "),
            (Description{{{3, 0, 1}, {5, 5, 1, ObjectSize::large}}, Relation::beside}));
}

TEST(Sentences, OtherTextsSayNothing) {
  for (const char* text : {"", "a", "a red", "a red dog", "four red stars", "two small red stars",
                           "a small star", "a small", "a red star above", "a red star left a blue ring",
                           "a red star above a blue ring and a moon", "red star", "a red star of a blue ring",
                           "a red stars", "two red star", "an orange crosses above a blue ring",
                           "two red stars above two blue rings", "a red star above a red star"})
    EXPECT_FALSE(description_from(text).has_value()) << text;
}

TEST(CaptionedScenes, NothingTouchesAndAllLiesAsItShould) {
  Generator generator(2);
  for (int i = 0; i < 600; ++i) {
    const Description what = random_description(generator);
    const float spread = i % 3 == 0 ? 1.0f : i % 3 == 1 ? 0.5f : 0.0f;
    const auto objects = random_scene(what, generator, spread);
    size_t wanted = 0;
    for (const Group& group : what.groups) wanted += static_cast<size_t>(group.count);
    ASSERT_EQ(objects.size(), wanted);
    for (size_t a = 0; a < objects.size(); ++a) {
      EXPECT_GE(std::min(objects[a].cx, objects[a].cy) - objects[a].radius, 0.03f);
      EXPECT_LE(std::max(objects[a].cx, objects[a].cy) + objects[a].radius, 0.97f);
      EXPECT_GE(objects[a].radius, 0.13f) << sentence(what);
      EXPECT_EQ(objects[a].angle, 0.0f);
      for (size_t b = a + 1; b < objects.size(); ++b)
        EXPECT_GE(std::hypot(objects[a].cx - objects[b].cx, objects[a].cy - objects[b].cy),
                  objects[a].radius + objects[b].radius + 0.049f);
    }
    const Radii radii = radii_of(static_cast<int>(objects.size()));
    for (const size_t group : {size_t{0}, what.groups.size() - 1}) {
      const Scene& object = group == 0 ? objects.front() : objects.back();
      if (what.groups[group].size == ObjectSize::small) {
        EXPECT_LT(object.radius, radii.middle - 0.019f);
      }
      if (what.groups[group].size == ObjectSize::large) {
        EXPECT_GT(object.radius, radii.middle + 0.019f);
      }
    }
    if (what.groups.size() < 2 || what.relation != Relation::above) continue;
    for (int a = 0; a < what.groups[0].count; ++a)
      for (size_t b = static_cast<size_t>(what.groups[0].count); b < objects.size(); ++b)
        EXPECT_LT(objects[static_cast<size_t>(a)].cy, objects[b].cy);
  }
}

// Without spread a sentence has one picture, but for tints and background; with some, objects stay near.
TEST(CaptionedScenes, SpreadLeadsAwayFromTheUsualPlaces) {
  Generator generator(6);
  for (const char* text : {"a red star", "three blue rings", "two red stars above a small blue ring",
                           "a large pink heart right of two green moons"}) {
    const Description what = *description_from(text);
    const auto usual = random_scene(what, generator, 0.0f), again = random_scene(what, generator, 0.0f);
    const auto near = random_scene(what, generator, 0.25f);
    for (size_t i = 0; i < usual.size(); ++i) {
      EXPECT_EQ(usual[i].cx, again[i].cx) << text;
      EXPECT_EQ(usual[i].cy, again[i].cy) << text;
      EXPECT_EQ(usual[i].radius, again[i].radius) << text;
      EXPECT_LT(std::hypot(near[i].cx - usual[i].cx, near[i].cy - usual[i].cy), 0.25f) << text;
      EXPECT_NE(near[i].cx, usual[i].cx) << text;
    }
  }
  // What is only said to be beside something is now here, now there.
  const Description beside = *description_from("a red star and a blue ring");
  int left = 0, above = 0;
  for (int i = 0; i < 100; ++i) {
    const auto objects = random_scene(beside, generator, 0.0f);
    left += objects[0].cx < objects[1].cx;
    above += objects[0].cy < objects[1].cy;
  }
  EXPECT_NEAR(left, 25, 15);
  EXPECT_NEAR(above, 25, 15);
}

TEST(CaptionedScenes, SomeAreHeldOutAndNeverTrainedOn) {
  int held = 0, several = 0;
  Generator generator(3);
  for (int i = 0; i < 4000; ++i) {
    const Description what = random_description(generator);
    const bool single = what.groups.size() == 1 && what.groups[0].count == 1;
    several += !single;
    held += is_held_out(what);
    EXPECT_FALSE(single && is_held_out(what));
  }
  EXPECT_NEAR(static_cast<double>(held) / several, 1.0 / 8, 0.03);
  for (int i = 0; i < 50; ++i) {
    EXPECT_FALSE(is_held_out(captioned_scene(5, i, SceneSet::training).description));
    EXPECT_TRUE(is_held_out(captioned_scene(5, i, SceneSet::held_out).description));
    EXPECT_EQ(captioned_scene(5, i, SceneSet::one_object).objects.size(), 1u);
  }
  EXPECT_EQ(captioned_scene(5, 7, SceneSet::training).description,
            captioned_scene(5, 7, SceneSet::training).description);
}

TEST(CaptionedScenes, AreWrittenWithTheirSentences) {
  const TemporaryFolder folder;
  write_scenes(folder / "s", 5, 32, 4, SceneSet::training);
  std::ifstream lines(folder / "s/captions.jsonl");
  std::string line;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(std::getline(lines, line));
    const CaptionedScene scene = captioned_scene(4, i, SceneSet::training);
    EXPECT_EQ(line,
              fmt::format("{{\"file\":\"{:06}.png\",\"caption\":\"{}\"}}", i, sentence(scene.description)));
    EXPECT_EQ(read_image(folder / fmt::format("s/{:06}.png", i)), render(scene.objects, 32));
  }
  EXPECT_THROW(write_scenes(folder / "s", 5, 32, 4, SceneSet::training), UsageError);
  EXPECT_THROW(write_scenes(folder / "t", 0, 32, 4, SceneSet::training), UsageError);
  EXPECT_THROW(write_scenes(folder / "t", 5, 32, 4, SceneSet::training, 1.5f), UsageError);
  write_scenes(folder / "near", 1, 32, 4, SceneSet::training, 0.5f);
  EXPECT_EQ(read_image(folder / "near/000000.png"),
            render(captioned_scene(4, 0, SceneSet::training, 0.5f).objects, 32));
}

}  // namespace
}  // namespace linnet
