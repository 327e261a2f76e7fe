// linnet eval shapes: how many pictures of a folder show what they should.
#include <fmt/format.h>

#include "eval.h"
#include "eval/shapes_judge.h"
#include "io/file.h"

namespace linnet::app {
namespace {

struct Options {
  std::string dir, json;
};

// "100", " 97", "  -" where nothing was asked for.
std::string percent(int64_t correct, int64_t count) {
  if (count == 0) return "-";
  return fmt::format("{:.0f}", 100.0 * static_cast<double>(correct) / static_cast<double>(count));
}

struct Tally {
  int64_t correct = 0, count = 0;
  void add(const ShapesScore& score, int shapes_class) {
    correct += score.class_correct[static_cast<size_t>(shapes_class)];
    count += score.class_count[static_cast<size_t>(shapes_class)];
  }
};

// Colours down, shapes across: percentages of pictures that show both.
void show_table(const ShapesScore& score) {
  fmt::print("{:>8}", "%");
  for (const std::string& shape : shape_names()) fmt::print("{:>10}", shape);
  fmt::print("{:>10}\n", "all");
  std::array<Tally, shape_count> columns;
  for (int colour = 0; colour < colour_count; ++colour) {
    fmt::print("{:>8}", colour_names()[static_cast<size_t>(colour)]);
    Tally row;
    for (int shape = 0; shape < shape_count; ++shape) {
      const int index = colour * shape_count + shape;
      Tally cell;
      cell.add(score, index);
      row.add(score, index);
      columns[static_cast<size_t>(shape)].add(score, index);
      fmt::print("{:>10}", percent(cell.correct, cell.count));
    }
    fmt::print("{:>10}\n", percent(row.correct, row.count));
  }
  fmt::print("{:>8}", "all");
  for (const Tally& column : columns) fmt::print("{:>10}", percent(column.correct, column.count));
  fmt::print("{:>10}\n", percent(score.correct, score.count));
}

void run(const Options& options) {
  if (!options.json.empty()) check_writable(options.json);
  const ShapesScore score = score_folder(options.dir);
  if (!options.json.empty()) write_text_file(options.json, to_json(score) + "\n");
  show_table(score);
  const auto share = [](int64_t n, int64_t of) {
    return of == 0 ? 0.0 : 100.0 * static_cast<double>(n) / static_cast<double>(of);
  };
  fmt::print(
      "{} pictures: {:.1f} % right; {:.1f} % well drawn, of which {:.1f} % in shape and {:.1f} % in colour as "
      "asked; "
      "mean IoU {:.3f}\n",
      score.count, share(score.correct, score.count), share(score.found, score.count),
      share(score.shape_correct, score.found), share(score.colour_correct, score.found), score.mean_iou);
}

}  // namespace

void add_eval_shapes(const Verb& verb) {
  const Verb shapes = verb.add_subcommand(
      "shapes", "Judge pictures of coloured shapes; a picture's text, folder or name says what it should show");
  auto options = std::make_shared<Options>();
  shapes.add_option("dir", options->dir, "Folder of pictures, sub-folders included").required();
  shapes.add_option("--json", options->json, "Also write the score to this file").type_name("FILE");
  shapes.callback([options] { run(*options); });
}

}  // namespace linnet::app
