// The captioned data set `scenes`: one to three coloured shapes, upright, in one or two groups, with a size or
// a number and a place to each other, and a sentence that says so: "two red stars above a blue ring", "a small
// pink moon". As with `shapes`, every picture is a function of (seed, index), and arithmetic can tell whether a
// picture shows what its sentence says (eval/scenes_judge.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/shapes.h"

namespace linnet {

/// Where the first group is, seen from the second. beside: anywhere.
enum class Relation : uint8_t { beside, left, right, above, below };

/// What is said of an object's size; several of a kind have none.
enum class ObjectSize : uint8_t { any, small, large };

/// So many of one shape in one colour.
struct Group {
  int shape = 0, colour = 0, count = 1;
  ObjectSize size = ObjectSize::any;
  bool operator==(const Group&) const = default;
};

/// What a scene shows, as its sentence says it.
struct Description {
  std::vector<Group> groups;  ///< one or two
  Relation relation = Relation::beside;
  bool operator==(const Description&) const = default;
};

constexpr int most_of_a_group = 3, most_objects = 3;

/// Radii of objects of which there are so many, in picture widths; below the middle they are small, above it
/// large.
struct Radii {
  float least, middle, most;
};
Radii radii_of(int objects);

/// "a large red star", "three green hearts", "two red stars above a blue ring", "a red star and a small blue
/// ring".
std::string sentence(const Description& description);
/// The other way; nothing for any other text, or for more objects than a scene has. Upper case, blanks, and
/// whether it says "a", "an" or "one" do not matter.
std::optional<Description> description_from(std::string_view text);

/// About a third each: one object, several of a kind, two groups with or without a relation.
Description random_description(Generator& generator);
/// Descriptions of several objects that training never sees, one in eight by a hash: what scores are taken on.
bool is_held_out(const Description& description);

/// Objects that show it, none touching another, and the background on the first. With a spread of 1 they are
/// anywhere and of any size that the sentence allows, with 0 in the one place and of the one size that it
/// stands for most, else so far between: what a sentence says of places shows then in every picture, and not
/// only on an average over many.
std::vector<Scene> random_scene(const Description& description, Generator& generator, float spread = 1.0f);

/// Which descriptions a data set has: all that are not held out, those that are, or those of one object alone,
/// which a model learns first with profit.
enum class SceneSet : uint8_t { training, held_out, one_object };

/// The index-th of the data set that the seed names.
struct CaptionedScene {
  Description description;
  std::vector<Scene> objects;
};
CaptionedScene captioned_scene(uint64_t seed, int64_t index, SceneSet set, float spread = 1.0f);

/// Writes dir/<index>.png and dir/captions.jsonl with a line for each: file and caption. progress is called
/// with the number of pictures written so far. Throws UsageError as write_data_set does, and when spread is not
/// in 0..1.
void write_scenes(const std::filesystem::path& dir, int64_t count, int64_t size, uint64_t seed, SceneSet set,
                  float spread = 1.0f, const std::function<void(int64_t)>& progress = {});

}  // namespace linnet
