// Clipping of the gradient's norm, which is computed where gradients lie and is not waited for.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace linnet::ops {

/// One f32 each, on the gradients' device.
struct Clip {
  Tensor norm;    ///< of all gradients together
  Tensor factor;  ///< what they are to be multiplied with so that it is no more than the limit
};

/// Of gradients in f32 that lie on one device, which may be none at all; limit 0: factor 1. A norm that is
/// infinite gives factor 0. On the CPU its squares are added as sum_of_squares() does (ops/reduce.h).
Clip clip_to(double limit, const std::vector<Tensor>& gradients, const Device& device);

}  // namespace linnet::ops
