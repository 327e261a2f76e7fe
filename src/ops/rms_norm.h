// T5's layer norm: no mean is taken away and nothing is added (Zhang & Sennrich, arXiv 1910.07467).
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x (..., d) f32 → x / √(mean(x²) + epsilon) · weight, weight (d) of any float type. Returns x's shape in
/// out_dtype.
Tensor rms_norm(const Tensor& x, const Tensor& weight, float epsilon, DType out_dtype);

}  // namespace linnet::ops
