// Conversion between f32 and bf16 (any other pair by Tensor::to), as an operation with a gradient.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x in another floating-point type; x itself if it has that type already. The gradient is passed on in the
/// type in which it arrives.
Tensor cast(const Tensor& x, DType dtype);

}  // namespace linnet::ops
