// What a training step is fed: batches that are pure functions of the step, so that resuming needs no state and
// any step can be made again; and a thread that makes them ahead of time.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "core/processes.h"
#include "train/config.h"

namespace linnet {

struct Batch {
  Tensor x0, noise;  ///< (n, c, h, w) f32
  Tensor t;          ///< (n) i64
  Tensor y;          ///< (n) i64, of a run on classes; the null class where the class was dropped
  /// Of a run on texts: their pieces, or, where they were encoded beforehand, their states.
  std::vector<std::vector<int64_t>> ids = {};
  TextStates texts = {{}, {0}};
};
/// Pictures begin to end of it.
Batch part_of(const Batch& batch, int64_t begin, int64_t end);

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// A step's batch, or of it what this process is to take.
  virtual Batch batch(int64_t step) const = 0;
  /// Names of the classes by index; empty if unknown or of texts.
  virtual std::vector<std::string> class_names() const { return {}; }
  /// How many pictures there are; 0 of batches that are given as such.
  virtual int64_t count() const { return 0; }
  /// What whoever trains on it should know; empty: nothing.
  virtual std::string remark() const { return {}; }
};

/// Of several processes each takes as many pictures of a batch, the first of them the first ones; together they
/// see what one alone would. Throws Error if the data cannot be read or do not fit the model, UsageError if a
/// batch cannot be shared out so.
std::unique_ptr<BatchSource> open_data(const TrainConfig& config, const ProcessShare& share = {});

/// Makes batches first, first + 1, … on a thread of its own, a few ahead; its loops take so many threads: one
/// where the training step beside needs the processor itself.
class Prefetcher {
 public:
  Prefetcher(const BatchSource& source, int64_t first, int threads);
  ~Prefetcher();
  /// The next batch. Throws what making it threw.
  Batch next();

 private:
  void run(int64_t step, int threads);

  const BatchSource& source_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_;
  std::exception_ptr error_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace linnet
