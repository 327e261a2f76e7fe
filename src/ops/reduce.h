// Sums over rows, and the sum of squares that gradient clipping needs. Not differentiable.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x (rows, n) f32 or bf16 → (n) f32, summed in row order (on a GPU, in another one, which is always the same).
Tensor sum_rows(const Tensor& x);

/// Σ x² of x f32, in f64 (on a GPU, in f32, and waits for it), independent of the number of threads.
double sum_of_squares(const Tensor& x);

/// Adds Σ x² to sum, one f32 on x's device; waits for nothing.
void add_squares(const Tensor& x, Tensor& sum);

}  // namespace linnet::ops
