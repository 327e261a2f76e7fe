// linnet eval scenes: how many pictures of a folder show what their sentences say.
#include <fmt/format.h>

#include "eval.h"
#include "eval/scenes_judge.h"
#include "io/file.h"

namespace linnet::app {
namespace {

struct Options {
  std::string dir, json;
};

void run(const Options& options) {
  if (!options.json.empty()) check_writable(options.json);
  const SceneScore score = score_scenes(options.dir);
  if (!options.json.empty()) write_text_file(options.json, to_json(score));
  const auto percent = [](int64_t right, int64_t count) {
    return count == 0 ? std::string("-")
                      : fmt::format("{:.1f}", 100.0 * static_cast<double>(right) / static_cast<double>(count));
  };
  fmt::print("{:<14}{:>9}{:>9}{:>9}{:>9}\n", "%", "pictures", "shapes", "colours", "right");
  for (size_t i = 0; i < score.tasks.size(); ++i) {
    const SceneScore::Task& task = score.tasks[i];
    fmt::print("{:<14}{:>9}{:>9}{:>9}{:>9}\n", name_of(static_cast<SceneTask>(i)), task.count,
               percent(task.shapes, task.count), percent(task.colours, task.count),
               percent(task.right, task.count));
  }
  fmt::print("{:<14}{:>9}{:>9}{:>9}{:>9}\n", "all", score.count, "", "", percent(score.right, score.count));
}

}  // namespace

void add_eval_scenes(const Verb& verb) {
  const Verb scenes = verb.add_subcommand(
      "scenes", "Judge pictures of several coloured shapes against the sentences that they were painted from");
  auto options = std::make_shared<Options>();
  scenes.add_option("dir", options->dir, "Folder of pictures, sub-folders included").required();
  scenes.add_option("--json", options->json, "Also write the score to this file").type_name("FILE");
  scenes.callback([options] { run(*options); });
}

}  // namespace linnet::app
