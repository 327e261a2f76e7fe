// Settings that do nothing in a run because of what others say: train.momentum with AdamW, output.sample_every
// without texts to paint. Who sets one expects something of it, and would miss it hours later.
#pragma once

#include <string>
#include <vector>

#include "train/config.h"

namespace linnet {

struct IdleSettings {
  std::vector<std::string> names;       ///< "train.momentum"
  std::vector<std::string> because_of;  ///< settings that decide it: "train.optimizer"
  std::string why;                      ///< "train.optimizer is not \"muon\""
  std::string instead;                  ///< what would make them act
  bool may_wait = false;                ///< a file may have them ready for runs in which they act
};

/// All that do nothing, said or not.
std::vector<IdleSettings> idle_settings(const TrainConfig& config);

/// "nothing would come of train.momentum, as train.optimizer is not "muon": set it, or leave it out".
std::string refusal_of(const IdleSettings& idle);
/// "nothing comes of train.momentum, as train.optimizer is not "muon"".
std::string remark_on(const IdleSettings& idle);

}  // namespace linnet
