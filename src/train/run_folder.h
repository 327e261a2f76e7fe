// The folder that a run writes to: what may lie there already, and what is kept of it. Trainer writes the weights.
#pragma once

#include "train/config.h"

namespace linnet {

/// Throws UsageError unless the run may begin, or with resume go on, in output.dir. A run that begins would write
/// over what another left or a person put there; only what a run left that ended before its first save is let go.
void check_run_folder(const TrainConfig& config, bool resume);

/// Makes the folder and writes what says how the run is made; of metrics.jsonl there stays what was logged until
/// that step.
void begin_run_folder(const TrainConfig& config, int64_t step);

}  // namespace linnet
