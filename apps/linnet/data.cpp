// linnet data shapes: renders the procedural data set.
#include <fmt/format.h>

#include "io/shapes.h"
#include "terminal.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string dir;
  int64_t count = 20000, size = 32;
  uint64_t seed = 0;
};

void run(const Options& options) {
  {
    Progress progress;
    write_data_set(options.dir, options.count, options.size, options.seed, [&](int64_t done) {
      progress.show(static_cast<double>(done), static_cast<double>(options.count),
                    fmt::format("{} of {}", done, options.count));
    });
  }
  fmt::print("{} pictures of {}x{} pixels in {} classes: {}\n", options.count, options.size, options.size,
             shapes_class_count, options.dir);
}

}  // namespace

void add_data(const Verb& app) {
  const Verb data = app.add_subcommand("data", "Make data sets");
  data.require_subcommand(1, 1);
  const Verb shapes =
      data.add_subcommand("shapes", "Render the data set of coloured shapes as PNG files with captions");
  auto options = std::make_shared<Options>();
  shapes.add_option("dir", options->dir, "Folder to make").required();
  shapes.add_option("--count", options->count, "Number of pictures").capture_default_str();
  shapes.add_option("--size", options->size, "Side in pixels").capture_default_str();
  shapes.add_option("--seed", options->seed, "Another seed gives other pictures").capture_default_str();
  shapes.callback([options] { run(*options); });
}

}  // namespace linnet::app
