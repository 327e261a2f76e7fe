// AdamW over a list of parameters: their moments, their moving average, and the clipping of the gradient's
// norm.
#pragma once

#include "nn/parameter.h"
#include "train/config.h"

namespace linnet {

class Optimizer {
 public:
  /// Of parameters that have values, from here on leaves whose gradients are wanted. averages, one for each
  /// parameter and in the same order, start as copies.
  Optimizer(const nn::ParameterList& parameters, const nn::ParameterList& averages);

  void clear_gradients();
  /// Moves the parameters by their gradients, as the step after `steps_done`, and clears those. Returns the
  /// gradient's norm before clipping.
  double step(const OptimizerConfig& config, double lr, int64_t steps_done);

  /// Replaces values and averages; values in the parameters' order.
  void start_from(const nn::ParameterList& values);
  /// All that makes up the state, by name, sharing memory: "model.", "ema.", "mean.", "square.".
  std::vector<std::pair<std::string, Tensor>> state() const;

 private:
  struct Slot {
    std::string name;
    nn::Parameter *parameter, *average;
    Tensor mean, square;
  };

  double gradient_norm() const;

  std::vector<Slot> slots_;
};

}  // namespace linnet
