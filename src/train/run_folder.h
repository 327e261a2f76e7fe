// The folder that a run writes to: what may lie there already, and what is kept of it. Trainer writes the
// weights.
#pragma once

#include "io/file_lock.h"
#include "train/config.h"

namespace linnet {

/// Checks when it is made, and keeps the folder for this run alone from when it is there until it goes.
class RunFolder {
 public:
  /// Throws UsageError unless the run may begin, or with resume go on, in output.dir. A run that begins would
  /// write over what another left or a person put there; only what a run left that ended before its first save
  /// is let go. Throws UsageError, too, if another run is working there.
  RunFolder(const TrainConfig& config, bool resume);

  /// Makes the folder and writes what says how the run is made; of metrics.jsonl there stays what was logged
  /// until that step.
  void begin(int64_t step);

 private:
  void check_contents() const;
  void lock();

  const TrainConfig& config_;
  const bool resume_;
  std::unique_ptr<FileLock> lock_;
};

}  // namespace linnet
