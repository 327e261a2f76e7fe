// Sums over rows, the sum of squares that gradient clipping needs, and whether all is finite. Not
// differentiable.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x (rows, n) f32 or bf16 → (n) f32, summed in row order (on a GPU, in another one, which is always the same).
Tensor sum_rows(const Tensor& x);

/// Σ x² of x f32 on the CPU, in f32 over blocks of 4,096 and in f64 over those, independent of the number of
/// threads; infinite where a block's sum leaves f32. (Of many on a GPU: ops/clip.h.)
double sum_of_squares(const Tensor& x);

/// Whether x, f32 on any device, holds neither NaN nor infinity.
bool all_finite(const Tensor& x);

}  // namespace linnet::ops
