// Timing on machines that are never quiet: what is measured and the ceiling it is held against take turns in
// one run, so that a slow minute slows both, and the ratio of two figures outlives the figures. No clock is
// ever asserted on.
#pragma once

#include <functional>
#include <vector>

namespace linnet::app {

/// How long one measurement may go on. Each piece of work is run at least once after its warm-up, whatever the
/// budget.
struct Budget {
  double seconds = 10;
  int repeat = 20;  ///< most rounds
};

/// One of the things that take turns. Only run() is timed.
struct Work {
  std::function<void()> run;
  std::function<void()> prepare = {}, finish = {};  ///< around every call of run(), untimed; may be empty
  double least = 0.01;  ///< seconds that a sample lasts at least: shorter calls are repeated and averaged
};

/// Seconds a call, one entry a round.
struct Samples {
  std::vector<double> seconds;

  double best() const;
  double median() const;
};

/// Warms each up once, then runs them round after round in the given order until the budget is spent.
std::vector<Samples> interleave(const Budget& budget, const std::vector<Work>& works);

/// How much of a ceiling was reached: best over best and median over median. If the two differ much, the
/// machine was busy.
struct Ratio {
  double best = 0, median = 0;
};
/// `ceiling_amount` and `amount` are what one call does (FLOP, bytes), in the same unit.
Ratio reached(const Samples& samples, double amount, const Samples& ceiling, double ceiling_amount);

}  // namespace linnet::app
