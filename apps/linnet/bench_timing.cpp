#include "bench_timing.h"

#include <algorithm>
#include <chrono>

#include "bench_device.h"
#include "core/gpu.h"

namespace linnet::app {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

double time_call_here(const Work& work) {
  if (work.prepare) work.prepare();
  const auto begin = Clock::now();
  work.run();
  const double seconds = since(begin);
  if (work.finish) work.finish();
  return seconds;
}

// A GPU is given call after call without waiting in between, as in real use, and timed by its own clock.
double sample_on_gpu(const Work& work, double least) {
  struct Calls {
    const Work& work;
    int count;
  } calls{work, 1};
  const auto run = [](void* context) {
    const auto& given = *static_cast<Calls*>(context);
    for (int i = 0; i < given.count; ++i) given.work.run();
  };
  for (;;) {
    const double seconds = gpu().seconds(run, &calls);
    constexpr int most = 100000;
    if (seconds >= least || calls.count >= most) return seconds / calls.count;
    const double wanted = 1.2 * least / std::max(seconds / calls.count, 1e-7);
    calls.count = std::clamp(static_cast<int>(wanted), calls.count + 1, most);
  }
}

// Where something must be prepared for each call, each is timed.
double time_call_on_gpu(const Work& work) {
  if (work.prepare) work.prepare();
  const double seconds =
      gpu().seconds([](void* context) { static_cast<const Work*>(context)->run(); }, const_cast<Work*>(&work));
  if (work.finish) work.finish();
  return seconds;
}

// Averages as many calls as it takes to fill `least` seconds of timed work. The untimed part is bounded too:
// preparing may cost far more than what it prepares.
double sample(const Work& work, double least) {
  const bool on_gpu = bench_device().is_gpu();
  if (on_gpu && !work.prepare && !work.finish) return sample_on_gpu(work, least);
  const auto begin = Clock::now();
  double total = 0;
  int calls = 0;
  do {
    total += on_gpu ? time_call_on_gpu(work) : time_call_here(work);
    ++calls;
  } while (total < least && since(begin) < 10 * least);
  return total / calls;
}

}  // namespace

double Samples::best() const { return seconds.empty() ? 0 : *std::ranges::min_element(seconds); }

double Samples::median() const {
  if (seconds.empty()) return 0;
  std::vector<double> sorted = seconds;
  std::ranges::sort(sorted);
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

std::vector<Samples> interleave(const Budget& budget, const std::vector<Work>& works) {
  std::vector<Samples> samples(works.size());
  if (works.empty()) return samples;
  for (const Work& work : works) time_call_here(work);
  if (bench_device().is_gpu()) gpu().synchronize();
  // A small budget must still see every piece of work a few times.
  const double share = budget.seconds / (4.0 * static_cast<double>(works.size()));
  const auto begin = Clock::now();
  for (int round = 0; round == 0 || (round < budget.repeat && since(begin) < budget.seconds); ++round)
    for (size_t i = 0; i < works.size(); ++i)
      samples[i].seconds.push_back(sample(works[i], std::min(works[i].least, share)));
  return samples;
}

Ratio reached(const Samples& samples, double amount, const Samples& ceiling, double ceiling_amount) {
  const auto ratio = [&](double seconds, double ceiling_seconds) {
    return seconds > 0 && ceiling_amount > 0 ? amount / seconds * ceiling_seconds / ceiling_amount : 0.0;
  };
  return {ratio(samples.best(), ceiling.best()), ratio(samples.median(), ceiling.median())};
}

}  // namespace linnet::app
