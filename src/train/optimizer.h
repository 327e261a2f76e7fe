// AdamW, CAME or Muon over a list of parameters: what they keep of each, the moving average, and the clipping
// of the gradient's norm. All of it lies where the parameters lie, and a step on a GPU is not waited for.
#pragma once

#include "nn/parameter.h"
#include "ops/came.h"
#include "ops/clip.h"
#include "ops/optimized.h"
#include "train/config.h"

namespace linnet {

class Optimizer {
 public:
  /// Of parameters that have values, all on one device, from here on leaves whose gradients are wanted.
  /// averages, one for each parameter and in the same order, start as copies. name: "adamw", "came", or "muon",
  /// which is for the matrices inside blocks and leaves the rest to AdamW.
  Optimizer(const nn::ParameterList& parameters, const nn::ParameterList& averages,
            std::string_view name = "adamw");

  void clear_gradients();
  /// Of those parameters that have one.
  std::vector<Tensor> gradients() const;
  /// Of the whole state, bit for bit.
  uint64_t hash() const;
  /// Moves the parameters by their gradients, as the step after `steps_done`, and clears those. What has no
  /// gradient, as no part of the loss depends on it, stays as it is: no weight decay makes it smaller. Returns
  /// the gradient's norm before clipping, one f32 beside the parameters.
  Tensor step(const OptimizerConfig& config, double lr, int64_t steps_done);

  /// Replaces values and averages of the parameters that are named in the list.
  void start_from(const nn::ParameterList& values);
  /// All that makes up the state, by name, sharing memory: "model.", "ema.", "mean.", "square.", and of CAME's
  /// matrices "square_rows." and so on.
  std::vector<std::pair<std::string, Tensor>> state() const;

 private:
  enum class Rule : uint8_t { adamw, came, muon };
  struct Slot {
    std::string name;
    nn::Parameter *parameter, *average;
    Rule rule;
    ops::CameState kept;  ///< of AdamW mean and square, of Muon mean alone, all of the parameter's shape
  };

  static Rule rule_for(std::string_view optimizer, const nn::Parameter& parameter);
  static ops::CameState fresh_state(Rule rule, const Tensor& value);
  std::vector<ops::Optimized> all_by(Rule rule) const;
  const Device& device() const;

  std::vector<Slot> slots_;
};

}  // namespace linnet
