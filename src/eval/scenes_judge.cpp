#include "eval/scenes_judge.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/parallel.h"
#include "eval/pictures.h"
#include "io/captions.h"
#include "io/text.h"

namespace linnet {
namespace {

constexpr std::array<std::string_view, 4> task_names = {"single object", "counting", "two objects", "position"};

// Objects of the group's kind; any colour if that does not matter.
std::vector<const Verdict*> of_group(const std::vector<Verdict>& objects, const Group& group,
                                     bool colour_matters) {
  std::vector<const Verdict*> result;
  for (const Verdict& object : objects)
    if (object.found && object.shape == group.shape && (!colour_matters || object.colour == group.colour))
      result.push_back(&object);
  return result;
}

bool lies(Relation relation, const Verdict& a, const Verdict& b) {
  switch (relation) {
    case Relation::left: return a.cx < b.cx;
    case Relation::right: return a.cx > b.cx;
    case Relation::above: return a.cy < b.cy;
    case Relation::below: return a.cy > b.cy;
    case Relation::beside: break;
  }
  return true;
}

bool has_size(const Verdict& object, ObjectSize size, float middle) {
  return size == ObjectSize::any || (size == ObjectSize::large) == (object.radius > middle);
}

// How many of a shape are asked for, over all groups.
int asked_for(const Description& asked, int shape) {
  int count = 0;
  for (const Group& group : asked.groups) count += group.shape == shape ? group.count : 0;
  return count;
}

std::string key_of(const std::filesystem::path& picture) { return picture.lexically_normal().string(); }

// By file; empty if the folder lists none.
std::map<std::string, std::string> captions_by_file(const std::filesystem::path& dir) {
  std::map<std::string, std::string> captions;
  if (!lists_captions(dir)) return captions;
  for (CaptionedPicture& picture : read_captions(dir))
    captions[key_of(picture.path)] = std::move(picture.caption);
  return captions;
}

Description asked_of(const std::filesystem::path& path, const std::map<std::string, std::string>& captions) {
  const ImageText text = read_image_notes(path).text;
  const auto caption = captions.find(key_of(path));
  std::string said = caption == captions.end() ? "" : caption->second;
  for (const char* key : {"caption", "prompt"})
    if (const auto entry = text.find(key); entry != text.end()) said = entry->second;
  const auto description = description_from(said);
  check(description.has_value(), "{}: \"{}\" is no sentence of the data set scenes", printable(path.string()),
        printable(said));
  return *description;
}

}  // namespace

std::string_view name_of(SceneTask task) { return task_names[static_cast<size_t>(task)]; }

SceneTask task_of(const Description& description) {
  if (description.groups.size() == 1)
    return description.groups[0].count == 1 ? SceneTask::single_object : SceneTask::counting;
  return description.relation == Relation::beside ? SceneTask::two_objects : SceneTask::position;
}

SceneVerdict judge_scene(const Image& image, const Description& asked) {
  const std::vector<Verdict> objects = judge_objects(image);
  size_t wanted = 0;
  SceneVerdict verdict{true, true, true, true};
  for (const Group& group : asked.groups) {
    wanted += static_cast<size_t>(group.count);
    const auto alike = of_group(objects, group, false);
    verdict.shapes = verdict.shapes && static_cast<int>(alike.size()) == asked_for(asked, group.shape);
    verdict.colours = verdict.colours && static_cast<int>(of_group(objects, group, true).size()) == group.count;
  }
  verdict.shapes = verdict.shapes && objects.size() == wanted;
  verdict.colours = verdict.colours && verdict.shapes;
  const float middle = radii_of(static_cast<int>(wanted)).middle;
  for (const Group& group : asked.groups)
    for (const Verdict* object : of_group(objects, group, true))
      verdict.sizes = verdict.sizes && has_size(*object, group.size, middle);
  if (asked.groups.size() > 1)
    for (const Verdict* a : of_group(objects, asked.groups[0], true))
      for (const Verdict* b : of_group(objects, asked.groups[1], true))
        verdict.relation = verdict.relation && lies(asked.relation, *a, *b);
  return verdict;
}

void add(SceneScore& score, const SceneVerdict& verdict, const Description& asked) {
  SceneScore::Task& task = score.tasks[static_cast<size_t>(task_of(asked))];
  ++task.count;
  ++score.count;
  task.shapes += verdict.shapes;
  task.colours += verdict.colours;
  task.right += verdict.right();
  score.right += verdict.right();
}

std::string to_json(const SceneScore& score) {
  nlohmann::ordered_json json;
  json["pictures"] = score.count;
  json["right"] = score.right;
  for (size_t i = 0; i < task_names.size(); ++i) {
    const SceneScore::Task& task = score.tasks[i];
    json["tasks"][std::string(task_names[i])] = {
        {"pictures", task.count}, {"shapes", task.shapes}, {"colours", task.colours}, {"right", task.right}};
  }
  return json.dump(2) + "\n";
}

SceneScore score_scenes(const std::filesystem::path& dir) {
  const std::vector<std::filesystem::path> paths = pictures_in(dir);
  const auto captions = captions_by_file(dir);
  std::vector<SceneVerdict> verdicts(paths.size());
  std::vector<Description> asked(paths.size());
  parallel_for(static_cast<int64_t>(paths.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<size_t>(i);
      asked[at] = asked_of(paths[at], captions);
      verdicts[at] = judge_scene(read_image(paths[at]), asked[at]);
    }
  });
  SceneScore score;
  for (size_t i = 0; i < paths.size(); ++i) add(score, verdicts[i], asked[i]);
  return score;
}

}  // namespace linnet
