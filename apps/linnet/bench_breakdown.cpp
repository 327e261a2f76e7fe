#include "bench_breakdown.h"

#include <fmt/format.h>

#include <algorithm>

namespace linnet::app {
namespace {

double total(const Part& part) { return part.calls * part.samples.best(); }

double lost(const Part& part, const Whole& whole) {
  const double peak = whole.matmul_flops / whole.matmul.best();
  return total(part) - part.calls * part.flops / peak;
}

std::vector<Part> by_loss(std::vector<Part> parts, const Whole& whole) {
  std::ranges::stable_sort(parts, std::greater{}, [&](const Part& part) { return lost(part, whole); });
  return parts;
}

Cell or_nothing(double value, bool given) { return given ? Cell(value) : Cell(); }

}  // namespace

Table part_facts(const std::vector<Part>& parts) {
  Table table("operations", "Operations of one pass",
              {{"operation", "operation"},
               {"shape", "shape"},
               {"calls", "calls", 1},
               {"gflop", "GFLOP a call", 3},
               {"mbytes", "MB a call", 2}});
  for (const Part& part : parts)
    table.add(
        {part.name, part.shape, part.calls, or_nothing(part.flops * 1e-9, part.flops > 0), part.bytes * 1e-6});
  return table;
}

Table breakdown(const std::vector<Part>& parts, const Whole& whole) {
  Table table("breakdown",
              "Where the time goes (each operation timed alone; lost: beyond its GEMM FLOPs at the ceiling)",
              {{"operation", "operation"},
               {"call_ms", "ms a call", 3},
               {"total_ms", "ms in all", 2},
               {"share", "% of whole", 1},
               {"gflops", "GFLOP/s", 0},
               {"gbytes", "GB/s", 1},
               {"of_matmul", "% of matmul", 0},
               {"of_copy", "% of copy", 0},
               {"lost_ms", "ms lost", 2}});
  const double time = whole.samples.best();
  double explained = 0, explained_loss = 0, flops = 0;
  for (const Part& part : by_loss(parts, whole)) {
    const double call = part.samples.best();
    const bool product = part.flops > 0;
    table.add(
        {part.name, call * 1e3, total(part) * 1e3, 100 * total(part) / time,
         or_nothing(part.flops / call * 1e-9, product), part.bytes / call * 1e-9,
         or_nothing(100 * reached(part.samples, part.flops, whole.matmul, whole.matmul_flops).best, product),
         100 * reached(part.samples, part.bytes, whole.copy, whole.copy_bytes).best, lost(part, whole) * 1e3});
    explained += total(part);
    explained_loss += lost(part, whole);
    flops += part.calls * part.flops;
  }
  const double rest = time - explained;
  table.add({"rest (not in these)", {}, rest * 1e3, 100 * rest / time, {}, {}, {}, {}, rest * 1e3});
  table.add({"whole",
             {},
             time * 1e3,
             100.0,
             flops / time * 1e-9,
             {},
             100 * reached(whole.samples, flops, whole.matmul, whole.matmul_flops).best,
             {},
             (explained_loss + rest) * 1e3});
  return table;
}

std::string largest_gaps(const std::vector<Part>& parts, const Whole& whole) {
  std::vector<std::string> names;
  for (const Part& part : by_loss(parts, whole))
    if (names.size() < 3) names.push_back(fmt::format("{} {:.1f} ms", part.name, lost(part, whole) * 1e3));
  return fmt::format("Largest gaps to the ceiling: {}.", fmt::join(names, ", "));
}

}  // namespace linnet::app
