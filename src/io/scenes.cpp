#include "io/scenes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "core/parallel.h"
#include "io/file.h"
#include "io/text.h"

namespace linnet {
namespace {

constexpr std::array<std::string_view, most_of_a_group + 1> numbers = {"", "a", "two", "three"};
constexpr std::array<std::string_view, 3> sizes = {"", "small", "large"};
constexpr std::array<std::string_view, 5> relations = {"and", "left of", "right of", "above", "below"};

std::string plural(const std::string& shape) {
  return fmt::format("{}{}", shape, shape.ends_with('s') ? "es" : "s");
}

std::string words_of(const Group& group) {
  const std::string& shape = shape_names()[static_cast<size_t>(group.shape)];
  const std::string& colour = colour_names()[static_cast<size_t>(group.colour)];
  if (group.count > 1)
    return fmt::format("{} {} {}", numbers[static_cast<size_t>(group.count)], colour, plural(shape));
  if (group.size != ObjectSize::any)
    return fmt::format("a {} {} {}", sizes[static_cast<size_t>(group.size)], colour, shape);
  return fmt::format("{} {} {}", colour == "orange" ? "an" : "a", colour, shape);
}

std::optional<int> index_of(std::span<const std::string> names, const std::string& name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) return std::nullopt;
  return static_cast<int>(found - names.begin());
}

// "two red stars", "a small red star": the next three words, or four.
std::optional<Group> read_group(std::istream& words) {
  std::string number, colour, shape;
  if (!(words >> number >> colour)) return std::nullopt;
  Group group;
  if (colour == sizes[1] || colour == sizes[2]) {
    group.size = colour == sizes[1] ? ObjectSize::small : ObjectSize::large;
    words >> colour;
  }
  words >> shape;
  const bool one = number == "an" || number == "one";
  const auto count = std::ranges::find(numbers, one ? numbers[1] : std::string_view(number));
  const auto colour_index = index_of(colour_names(), colour);
  if (count == numbers.end() || number.empty() || !colour_index) return std::nullopt;
  group.colour = *colour_index;
  group.count = static_cast<int>(count - numbers.begin());
  if (group.count > 1 && group.size != ObjectSize::any) return std::nullopt;
  for (group.shape = 0; group.shape < shape_count; ++group.shape) {
    const std::string& name = shape_names()[static_cast<size_t>(group.shape)];
    if (shape == (group.count == 1 ? name : plural(name))) return group;
  }
  return std::nullopt;
}

float between(Generator& generator, float low, float high) { return low + (high - low) * generator.uniform(); }

// Whether the first group's object may lie at a, when the second's is at b.
bool holds(Relation relation, const Scene& a, const Scene& b) {
  const float room = 0.6f * (a.radius + b.radius);
  switch (relation) {
    case Relation::left: return a.cx + room < b.cx;
    case Relation::right: return b.cx + room < a.cx;
    case Relation::above: return a.cy + room < b.cy;
    case Relation::below: return b.cy + room < a.cy;
    case Relation::beside: break;
  }
  return true;
}

// The least and the most that the size allows; sizes that are said stay clear of the middle.
std::pair<float, float> radii_for(ObjectSize size, const Radii& radii) {
  constexpr float clear = 0.02f;
  switch (size) {
    case ObjectSize::small: return {radii.least, radii.middle - clear};
    case ObjectSize::large: return {radii.middle + clear, radii.most};
    case ObjectSize::any: break;
  }
  return {radii.least, radii.most};
}

// From a picture's middle to an object that is arranged: two large ones just do not touch.
constexpr float aside = 0.245f;

// The middle of one of two groups.
std::pair<float, float> middle_of(Relation relation, bool first) {
  const float before = first ? 0.5f - aside : 0.5f + aside, after = 1.0f - before;
  switch (relation) {
    case Relation::right: return {after, 0.5f};
    case Relation::above: return {0.5f, before};
    case Relation::below: return {0.5f, after};
    default: return {before, 0.5f};
  }
}

// From there to the i-th object of its group: in a row or a column, or three as a triangle.
std::pair<float, float> within_group(int count, int i, bool column) {
  if (count == 1) return {0.0f, 0.0f};
  if (count == 3 && i == 2) return {0.0f, -aside};
  const float along = i == 0 ? -aside : aside;
  return column ? std::pair(0.0f, along) : std::pair(along, count == 3 ? aside : 0.0f);
}

// All in their usual places and sizes: those that are beside each other in any of four ways.
void arrange(std::vector<Scene>& objects, const Description& what, Generator& generator) {
  const Radii radii = radii_of(static_cast<int>(objects.size()));
  Relation relation = what.relation;
  if (relation == Relation::beside) relation = static_cast<Relation>(1 + generator.below(4));
  const bool alone = what.groups.size() == 1;
  auto object = objects.begin();
  for (const Group& group : what.groups) {
    const auto [x, y] = alone ? std::pair(0.5f, 0.5f) : middle_of(relation, &group == &what.groups.front());
    for (int i = 0; i < group.count; ++i, ++object) {
      const auto [dx, dy] = within_group(group.count, i, x != 0.5f);
      object->cx = x + dx;
      object->cy = y + dy;
      const auto [least, most] = radii_for(group.size, radii);
      object->radius = std::midpoint(least, most);
    }
  }
}

// One try to find places for all, so far from the usual ones; false if some touch or do not lie as they should.
bool place(std::vector<Scene>& objects, const std::vector<Scene>& usual, float spread, const Description& what,
           Generator& generator) {
  constexpr float margin = 0.04f, gap = 0.05f;
  const auto first_group = static_cast<size_t>(what.groups.front().count);
  const Radii radii = radii_of(static_cast<int>(objects.size()));
  for (size_t i = 0; i < objects.size(); ++i) {
    Scene& object = objects[i];
    const auto [least, most] = radii_for(what.groups[i < first_group ? 0 : 1].size, radii);
    object.radius = between(generator, least, most);
    const float room = 0.5f - object.radius - margin;
    object.cx = 0.5f + between(generator, -room, room);
    object.cy = 0.5f + between(generator, -room, room);
    if (usual.empty()) continue;
    for (float Scene::*number : {&Scene::radius, &Scene::cx, &Scene::cy})
      object.*number = std::lerp(usual[i].*number, object.*number, spread);
  }
  for (size_t i = 0; i < objects.size(); ++i)
    for (size_t j = i + 1; j < objects.size(); ++j) {
      const Scene &a = objects[i], &b = objects[j];
      if (std::hypot(a.cx - b.cx, a.cy - b.cy) < a.radius + b.radius + gap) return false;
      if (i < first_group && j >= first_group && !holds(what.relation, a, b)) return false;
    }
  return true;
}

}  // namespace

Radii radii_of(int objects) {
  if (objects == 1) return {0.15f, 0.24f, 0.38f};
  return objects == 2 ? Radii{0.14f, 0.185f, 0.23f} : Radii{0.135f, 0.16f, 0.185f};
}

std::string sentence(const Description& description) {
  const std::string text = words_of(description.groups.at(0));
  if (description.groups.size() > 1)
    return fmt::format("{} {} {}", text, relations[static_cast<size_t>(description.relation)],
                       words_of(description.groups[1]));
  return text;
}

std::optional<Description> description_from(std::string_view text) {
  std::istringstream words(lower_case(text));
  Description result;
  const auto first = read_group(words);
  if (!first) return std::nullopt;
  result.groups.push_back(*first);
  std::string relation, of;
  if (!(words >> relation)) return result;
  if (relation == "left" || relation == "right") {
    if (!(words >> of) || of != "of") return std::nullopt;
    relation = fmt::format("{} of", relation);
  }
  const auto known = std::ranges::find(relations, relation);
  const auto second = read_group(words);
  if (known == relations.end() || !second || words >> of) return std::nullopt;
  if (first->count + second->count > most_objects) return std::nullopt;
  if (first->shape == second->shape && first->colour == second->colour)
    return std::nullopt;  // they would be one
  result.groups.push_back(*second);
  result.relation = static_cast<Relation>(known - relations.begin());
  return result;
}

Description random_description(Generator& generator) {
  const auto any = [&](int count) { return static_cast<int>(generator.below(static_cast<uint64_t>(count))); };
  const auto group = [&](int count) {
    const bool sized = count == 1 && any(2) == 0;
    return Group{any(shape_count), any(colour_count), count,
                 sized ? static_cast<ObjectSize>(1 + any(2)) : ObjectSize::any};
  };
  Description result;
  switch (any(3)) {
    case 0: result.groups = {group(1)}; break;
    case 1: result.groups = {group(2 + any(most_of_a_group - 1))}; break;
    default: {
      const int first = any(4) == 0 ? 2 : 1, second = first == 1 && any(3) == 0 ? 2 : 1;
      result.groups = {group(first), group(second)};
      // Two groups of one kind would be one.
      while (result.groups[1].shape == result.groups[0].shape &&
             result.groups[1].colour == result.groups[0].colour)
        result.groups[1] = group(second);
      result.relation = static_cast<Relation>(any(5));
    }
  }
  return result;
}

bool is_held_out(const Description& description) {
  if (description.groups.size() == 1 && description.groups[0].count == 1) return false;
  uint64_t hash = static_cast<uint64_t>(description.relation);
  for (const Group& group : description.groups)
    hash = mix(hash, static_cast<uint64_t>(group.shape * colour_count + group.colour) * 8 +
                         static_cast<uint64_t>(group.count) + 1000 * static_cast<uint64_t>(group.size));
  return hash % 8 == 0;
}

std::vector<Scene> random_scene(const Description& description, Generator& generator, float spread) {
  check(!description.groups.empty() && description.groups.size() <= 2, "a scene has one or two groups");
  std::vector<Scene> objects;
  for (const Group& group : description.groups)
    for (int i = 0; i < group.count; ++i)
      objects.push_back(upright_object(group.shape, group.colour, generator));
  check(!objects.empty() && objects.size() <= most_objects, "a scene has 1 to {} objects, not {}", most_objects,
        objects.size());
  std::vector<Scene> usual;  // none where it plays no part
  if (spread < 1) arrange(usual = objects, description, generator);
  constexpr int most_tries = 100'000;  // hundreds are rare
  for (int tries = 0; !place(objects, usual, spread, description, generator); ++tries)
    check(tries < most_tries, "there is no room for \"{}\" in a scene", sentence(description));
  return objects;
}

namespace {

bool belongs(const Description& description, SceneSet set) {
  const bool one_object = description.groups.size() == 1 && description.groups[0].count == 1;
  return set == SceneSet::one_object ? one_object : is_held_out(description) == (set == SceneSet::held_out);
}

}  // namespace

CaptionedScene captioned_scene(uint64_t seed, int64_t index, SceneSet set, float spread) {
  Generator generator(mix(mix(seed, 0x5ce9e5), static_cast<uint64_t>(index)));
  CaptionedScene result;
  do result.description = random_description(generator);
  while (!belongs(result.description, set));
  result.objects = random_scene(result.description, generator, spread);
  return result;
}

void write_scenes(const std::filesystem::path& dir, int64_t count, int64_t size, uint64_t seed, SceneSet set,
                  float spread, const std::function<void(int64_t)>& progress) {
  if (!(spread >= 0 && spread <= 1)) throw UsageError(fmt::format("spread must lie in 0..1, not {}", spread));
  prepare_data_set(dir, count, size);
  const auto file_of = [](int64_t index) { return fmt::format("{:06}.png", index); };
  constexpr int64_t batch = 256;  // pictures between two calls of progress
  for (int64_t first = 0; first < count; first += batch) {
    const int64_t here = std::min(batch, count - first);
    parallel_for(here, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = first + begin; i < first + end; ++i)
        write_image(dir / file_of(i), render(captioned_scene(seed, i, set, spread).objects, size), {}, {},
                    Durability::replaceable);
    });
    if (progress) progress(first + here);
  }
  std::string lines;
  for (int64_t i = 0; i < count; ++i) {
    nlohmann::ordered_json line;
    line["file"] = file_of(i);
    line["caption"] = sentence(captioned_scene(seed, i, set).description);
    lines += fmt::format("{}\n", line.dump());
  }
  write_text_file(dir / "captions.jsonl", lines);
}

}  // namespace linnet
