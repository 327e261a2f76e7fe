// The progress of linnet generate: which picture, which step, how long still.
#pragma once

#include <chrono>

#include "diffusion/samplers.h"
#include "terminal.h"

namespace linnet::app {

/// Called after every step: the bar, and the good moment to stop.
class StepWatch {
 public:
  /// Of so many pictures in all.
  StepWatch(Progress& progress, int64_t count) : progress_(progress), count_(count) {}

  /// Pictures first..end come next; of those before, some were there or are others' to paint.
  void begin_batch(int64_t first, int64_t end);
  void operator()(const SamplingStep& step);

 private:
  std::string pictures() const;  // "pictures 1-4 of 8, ", nothing of a single one

  using Clock = std::chrono::steady_clock;

  Progress& progress_;
  int64_t count_, first_ = 0, end_ = 0, begun_at_ = 0;
  int64_t painted_ = 0;  // in this process's batches before this one
  bool started_ = false;
  Clock::time_point start_ = Clock::now();
};

}  // namespace linnet::app
