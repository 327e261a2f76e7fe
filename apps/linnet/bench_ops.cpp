// linnet bench ops: every operation on its own, forward and backward, beside the ceiling that bounds it.
#include <fmt/format.h>

#include "bench.h"
#include "bench_ceilings.h"
#include "bench_operations.h"
#include "core/printable.h"

namespace linnet::app {
namespace {

struct Options : BenchOptions {
  std::vector<std::string> models{"LiT-S/2", "LiT-XL/2"};
  std::string mixer, only;
  int64_t size = 256, batch = 8;
};

// One direction of one operation.
struct Direction {
  const Operation* operation;
  const char* name;
  double flops, bytes;
  Work work;
};

std::vector<Direction> directions(const std::vector<Operation>& operations) {
  std::vector<Direction> list;
  for (const Operation& op : operations) {
    list.push_back({&op, "forward", op.flops, op.bytes, inference_work(op, 0.03)});
    if (op.backward || !op.leaves.empty())
      list.push_back({&op, "backward", op.backward_flops, op.backward_bytes, backward_work(op, 0.03)});
  }
  return list;
}

// What bounds an operation is the ceiling under which it would take longer.
void add_figures(Table& table, const std::string& model, const Direction& d, const Samples& s,
                 const Samples& matmul, double matmul_flops, const Samples& copy, double copy_bytes) {
  const Ratio by_products = reached(s, d.flops, matmul, matmul_flops),
              by_memory = reached(s, d.bytes, copy, copy_bytes);
  const bool products = by_products.best > by_memory.best;
  const Ratio& ratio = products ? by_products : by_memory;
  table.add({model, d.operation->name, std::string(d.name), s.best() * 1e3, s.median() * 1e3,
             d.flops > 0 ? Cell(d.flops / s.best() * 1e-9) : Cell(), d.bytes / s.best() * 1e-9,
             std::string(products ? "matmul" : "copy"), 100 * ratio.best, 100 * ratio.median});
}

// Those that are wanted.
std::vector<Operation> operations_of(const DiTConfig& config, const Options& o, int64_t batch) {
  std::vector<Operation> list = block_operations(config, batch, o.product_dtype());
  for (Operation& op : further_operations(config, batch, o.product_dtype())) list.push_back(std::move(op));
  list.push_back(optimizer_operation(int64_t{1} << 24));
  std::vector<std::string> names;
  for (const Operation& op : list) names.push_back(op.name);
  std::erase_if(list, [&](const Operation& op) { return op.name.find(o.only) == std::string::npos; });
  if (list.empty())
    throw UsageError(fmt::format("no operation has \"{}\" in its name; there are: {}", printable(o.only),
                                 fmt::join(names, "; ")));
  return list;
}

void measure(const Options& o, const std::string& model, Table& facts, Table& figures) {
  const DiTConfig config = config_for(model, o.size, o.mixer);
  const auto operations = operations_of(config, o, o.batch);
  const auto list = directions(operations);
  const MatmulCeiling matmul(o.batch * config.tokens(), config.hidden_size, config.mlp_size(),
                             o.product_dtype());
  const CopyCeiling copy;
  std::vector<Work> works{matmul.work(0.05), copy.work(0.05)};
  for (const Direction& d : list) works.push_back(d.work);
  const auto samples = interleave(o.budget, works);
  for (const Direction& d : list)
    facts.add({model, d.operation->name, std::string(d.name), d.operation->shape,
               d.flops > 0 ? Cell(d.flops * 1e-9) : Cell(), d.bytes * 1e-6});
  const std::string ceilings = fmt::format("ceilings of {}", model);
  figures.add({ceilings,
               matmul.name(),
               {},
               samples[0].best() * 1e3,
               samples[0].median() * 1e3,
               matmul.flops() / samples[0].best() * 1e-9,
               {},
               {},
               {},
               {}});
  figures.add({ceilings,
               copy.name(),
               {},
               samples[1].best() * 1e3,
               samples[1].median() * 1e3,
               {},
               copy.bytes() / samples[1].best() * 1e-9,
               {},
               {},
               {}});
  for (size_t i = 0; i < list.size(); ++i)
    add_figures(figures, model, list[i], samples[i + 2], samples[0], matmul.flops(), samples[1], copy.bytes());
}

void run(const Options& o) {
  for (const std::string& model : o.models) {  // wrong names are refused first
    const DiTConfig config = config_for(model, o.size, o.mixer);
    if (!o.only.empty()) operations_of(config, o, 1);
  }
  Report report = begin_report(
      "ops", o,
      {{"models", o.models}, {"mixer", o.mixer}, {"only", o.only}, {"size", o.size}, {"batch", o.batch}});
  Table facts("operations", fmt::format("Operations at {} pixels, batch {}", o.size, o.batch),
              {{"model", "model"},
               {"operation", "operation"},
               {"direction", "direction"},
               {"shape", "shape"},
               {"gflop", "GFLOP", 3},
               {"mbytes", "MB at least", 2}});
  Table figures("ops", "Speed (above 100 % of copy: the data stays in the caches)",
                {{"model", "model"},
                 {"operation", "operation"},
                 {"direction", "direction"},
                 {"best_ms", "best ms", 3},
                 {"median_ms", "median ms", 3},
                 {"gflops", "GFLOP/s", 0},
                 {"gbytes", "GB/s", 1},
                 {"bound", "bound by"},
                 {"ratio", "% of it", 0},
                 {"ratio_median", "by medians", 0}});
  for (const std::string& model : o.models) measure(o, model, facts, figures);
  report.facts(facts);
  report.measured(figures);
  report.save(o.json);
}

}  // namespace

void add_bench_ops(const Verb& bench) {
  const Verb app = bench.add_subcommand("ops", "Every operation forward and backward beside what bounds it");
  auto options = std::make_shared<Options>();
  app.add_option("--models", options->models, "Models whose shapes to take")
      .delimiter(',')
      .capture_default_str();
  add_mixer_option(app, options->mixer);
  app.add_option("--only", options->only, "Only operations with this in their names, such as attention");
  app.add_option("--size", options->size, "Side of the picture in pixels").capture_default_str();
  app.add_option("--batch", options->batch, "Pictures at once").in_range(1, 65536).capture_default_str();
  add_bench_options(app, *options);
  app.callback([options] { run(*options); });
}

}  // namespace linnet::app
