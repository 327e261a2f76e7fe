// y = x·Wᵀ of a weight that is used once. A few rows of it at a time are turned into the type of x and
// multiplied while they lie in the caches: no second copy of the weight is ever in memory, and what it costs is
// little more than reading it. Not differentiable.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x (..., in) f32 or bf16 (or f16 on a GPU); weight (out, in) of any float type, or i8 with the scale (out, 1)
/// f32 of each row, on either device: it goes to the GPU as it is stored, if x is there, and to x's type there.
/// Returns (..., out) of type out_dtype.
Tensor streamed_linear(const Tensor& x, const Tensor& weight, const Tensor& scale, DType out_dtype);

}  // namespace linnet::ops
