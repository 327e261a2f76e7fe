// Where a model's time goes: its operations timed one by one beside the whole, and the time that each takes
// above the ceiling's speed.
#pragma once

#include <vector>

#include "bench_operations.h"
#include "bench_report.h"

namespace linnet::app {

/// One operation's share of a whole: `calls` times what was measured of one call.
struct Part {
  std::string name, shape;
  double calls = 1, flops = 0, bytes = 0;  ///< flops of one call that count as the model's; bytes of one call
  Samples samples;
};

/// What was measured together: the whole, and the two ceilings.
struct Whole {
  Samples samples, matmul, copy;
  double matmul_flops = 0, copy_bytes = 0;  ///< of one call
};

/// Parts in descending order of lost time, i.e. time beyond their GEMM FLOPs at the ceiling's speed, and the
/// rest: what the parts, timed alone and with warm caches, do not explain.
Table breakdown(const std::vector<Part>& parts, const Whole& whole);
/// "largest gaps: MLP in + GELU 12 ms, …"
std::string largest_gaps(const std::vector<Part>& parts, const Whole& whole);

/// The parts' shapes and costs, which hold on every machine.
Table part_facts(const std::vector<Part>& parts);

}  // namespace linnet::app
