// Whether a picture shows what a sentence of the data set `scenes` says, in the spirit of GenEval (Ghosh et
// al., arXiv 2310.11513): the objects, their number, colours and places, each by plain image analysis.
#pragma once

#include <array>
#include <map>
#include <string>

#include "eval/shapes_judge.h"
#include "io/scenes.h"

namespace linnet {

/// What GenEval calls a task: what a sentence asks for.
enum class SceneTask : uint8_t { single_object, counting, two_objects, position };
std::string_view name_of(SceneTask task);
SceneTask task_of(const Description& description);

struct SceneVerdict {
  bool shapes = false;    ///< the shapes that were asked for, as many of each, whatever their colours
  bool colours = false;   ///< and in their colours
  bool sizes = false;     ///< what is said to be small or large is, for an object among so many
  bool relation = false;  ///< and each of the first group lies so to each of the second
  /// All of it, and nothing else in the picture.
  bool right() const { return shapes && colours && sizes && relation; }
};

SceneVerdict judge_scene(const Image& image, const Description& asked);

struct SceneScore {
  struct Task {
    int64_t count = 0, shapes = 0, colours = 0, right = 0;
  };
  std::array<Task, 4> tasks{};
  int64_t count = 0, right = 0;
};
void add(SceneScore& score, const SceneVerdict& verdict, const Description& asked);
std::string to_json(const SceneScore& score);

/// Judges every picture in a folder and its sub-folders by its text entry "prompt" or "caption", or for want of
/// it by its line in the folder's captions.jsonl. Throws Error when there is no picture, or one that says
/// nothing that description_from() understands.
SceneScore score_scenes(const std::filesystem::path& dir);

}  // namespace linnet
