// What optimisers step: many parameters in one call, since on a GPU most are too small for a kernel each.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace linnet::ops {

struct GpuParameter;

/// A parameter and what is kept of it, all f32, of as many numbers and on one device.
struct Optimized {
  Tensor value;
  Tensor gradient;  ///< undefined: zero
  Tensor mean;      ///< of gradients
  Tensor square;    ///< of gradients, their mean; undefined where an optimiser keeps none
  Tensor ema;       ///< moving average of the value
};

/// Throws Error, which begins with `operation`, when sizes differ.
void check_sizes(std::string_view operation, const Optimized& parameter);

/// As kernels see them.
std::vector<GpuParameter> on_gpu(const std::vector<Optimized>& parameters);

}  // namespace linnet::ops
