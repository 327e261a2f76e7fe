#include "step_watch.h"

#include <fmt/format.h>

#include "interrupt.h"

namespace linnet::app {

void StepWatch::begin_batch(int64_t first, int64_t end) {
  if (started_) painted_ += end_ - first_;
  first_ = first;
  end_ = end;
  if (!started_) begun_at_ = first;
  started_ = true;
  progress_.stage(pictures() + "first step");
}

std::string StepWatch::pictures() const {
  if (count_ == 1) return {};
  const std::string last = end_ - first_ > 1 ? fmt::format("-{}", end_) : std::string();
  return fmt::format("{} {}{} of {}, ", last.empty() ? "picture" : "pictures", first_ + 1, last, count_);
}

void StepWatch::operator()(const SamplingStep& step) {
  const int64_t here = end_ - first_, before = first_ - begun_at_, all = count_ - begun_at_;
  // Work is counted in picture-steps, as the last batch may be smaller: all of it, and that done here.
  const double done = static_cast<double>(before * step.count + here * (step.index + 1));
  const double done_here = static_cast<double>(painted_ * step.count + here * (step.index + 1));
  const double total = static_cast<double>(all * step.count);
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const double per_step = elapsed * static_cast<double>(here) / done_here;
  progress_.show(done, total,
                 fmt::format("{}step {} of {}, {}/step, {} left", pictures(), step.index + 1, step.count,
                             duration(per_step), duration(elapsed * (total - done) / done)));
  end_if_interrupted();
}

}  // namespace linnet::app
