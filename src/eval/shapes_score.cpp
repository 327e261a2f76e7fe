// Scores a folder of pictures with the judge.
#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/parallel.h"
#include "eval/pictures.h"
#include "eval/shapes_judge.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

std::optional<int> class_named(std::string_view name) {
  const auto names = class_names();
  const auto found = std::ranges::find(names, name);
  return found == names.end() ? std::nullopt : std::optional<int>(static_cast<int>(found - names.begin()));
}

// "red-star-0001" begins with a class; "red-stars" does not.
std::optional<int> class_beginning(const std::string& name) {
  for (const std::string& candidate : class_names()) {
    const bool ends =
        name.size() == candidate.size() ||
        (name.size() > candidate.size() && !std::isalpha(static_cast<unsigned char>(name[candidate.size()])));
    if (ends && name.starts_with(candidate)) return class_named(candidate);
  }
  return std::nullopt;
}

int asked_class(const fs::path& path) {
  const ImageText text = read_image_notes(path).text;
  if (const auto entry = text.find("class"); entry != text.end())
    if (const auto found = class_named(entry->second)) return *found;
  if (const auto found = class_named(path.parent_path().filename().string())) return *found;
  if (const auto found = class_beginning(path.stem().string())) return *found;
  fail("{}: neither its text, nor its folder, nor its name says which class it should show", path.string());
}

}  // namespace

void add(ShapesScore& score, const Verdict& verdict, int asked) {
  check(asked >= 0 && asked < shapes_class_count, "there is no class {} of shapes", asked);
  const bool shape = verdict.found && verdict.shape == asked % shape_count;
  const bool colour = verdict.found && verdict.colour == asked / shape_count;
  score.mean_iou += (static_cast<double>(verdict.iou) - score.mean_iou) / static_cast<double>(score.count + 1);
  ++score.count;
  score.found += verdict.found;
  score.shape_correct += shape;
  score.colour_correct += colour;
  score.correct += shape && colour;
  ++score.class_count[static_cast<size_t>(asked)];
  score.class_correct[static_cast<size_t>(asked)] += shape && colour;
}

std::string to_json(const ShapesScore& score) {
  const auto share = [&](int64_t n) {
    return score.count == 0 ? 0.0 : static_cast<double>(n) / static_cast<double>(score.count);
  };
  nlohmann::ordered_json json;
  json["count"] = score.count;
  json["correct"] = score.correct;
  json["accuracy"] = score.accuracy();
  json["shape_accuracy"] = share(score.shape_correct);
  json["colour_accuracy"] = share(score.colour_correct);
  json["found"] = share(score.found);
  json["mean_iou"] = score.mean_iou;
  for (size_t i = 0; i < score.class_count.size(); ++i)
    if (score.class_count[i] > 0)
      json["classes"][class_names()[i]] = {{"count", score.class_count[i]},
                                           {"correct", score.class_correct[i]}};
  return json.dump(2);
}

ShapesScore score_folder(const std::filesystem::path& dir) {
  const std::vector<fs::path> paths = pictures_in(dir);
  std::vector<Verdict> verdicts(paths.size());
  std::vector<int> asked(paths.size());
  parallel_for(static_cast<int64_t>(paths.size()), 8, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      asked[i] = asked_class(paths[i]);
      verdicts[i] = judge(read_image(paths[i]));
    }
  });
  ShapesScore score;
  for (size_t i = 0; i < paths.size(); ++i) add(score, verdicts[i], asked[i]);
  return score;
}

}  // namespace linnet
