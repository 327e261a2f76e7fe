// linnet data: renders the procedural data sets.
#include <fmt/format.h>

#include "io/scenes.h"
#include "terminal.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string dir;
  int64_t count = 20000, size = 32;
  uint64_t seed = 0;
  bool held_out = false, one_object = false;
  double spread = 1;
};

// A bar while write(on_picture) works.
template <class Write>
void with_progress(const Options& options, Write write) {
  Progress progress;
  write([&](int64_t done) {
    progress.show(static_cast<double>(done), static_cast<double>(options.count),
                  fmt::format("{} of {}", done, options.count));
  });
}

void run_shapes(const Options& o) {
  with_progress(o, [&](const auto& show) { write_data_set(o.dir, o.count, o.size, o.seed, show); });
  fmt::print("{} pictures of {}x{} pixels in {} classes: {}\n", o.count, o.size, o.size, shapes_class_count,
             o.dir);
}

void run_scenes(const Options& o) {
  const SceneSet set = o.held_out     ? SceneSet::held_out
                       : o.one_object ? SceneSet::one_object
                                      : SceneSet::training;
  with_progress(o, [&](const auto& show) {
    write_scenes(o.dir, o.count, o.size, o.seed, set, static_cast<float>(o.spread), show);
  });
  fmt::print("{} pictures of {}x{} pixels with a sentence each: {}\n", o.count, o.size, o.size, o.dir);
}

void add_options(const Verb& verb, Options& options) {
  verb.add_option("dir", options.dir, "Folder to make").required();
  verb.add_option("--count", options.count, "Number of pictures").capture_default_str();
  verb.add_option("--size", options.size, "Side in pixels").capture_default_str();
  verb.add_option("--seed", options.seed, "Another seed gives other pictures").capture_default_str();
}

}  // namespace

void add_data(const Verb& app) {
  const Verb data = app.add_subcommand("data", "Make data sets");
  data.require_subcommand(1, 1);
  const Verb shapes =
      data.add_subcommand("shapes", "Render the data set of coloured shapes as PNG files with captions");
  auto options = std::make_shared<Options>();
  add_options(shapes, *options);
  shapes.callback([options] { run_shapes(*options); });

  const Verb scenes = data.add_subcommand(
      "scenes", "Render the data set of scenes: several coloured shapes, and a sentence for each");
  auto of_scenes = std::make_shared<Options>();
  of_scenes->size = 64;
  add_options(scenes, *of_scenes);
  const Argument held_out =
      scenes.add_flag("--held-out", of_scenes->held_out, "Those whose sentences training never sees");
  scenes.add_flag("--one-object", of_scenes->one_object, "Those of one object").excludes(held_out);
  scenes
      .add_option("--spread", of_scenes->spread,
                  "How far objects are from the places that their sentences stand for most: 0 to 1")
      .capture_default_str();
  scenes.callback([of_scenes] { run_scenes(*of_scenes); });
}

}  // namespace linnet::app
