// Fewer tokens: squares of a grid become one token each, by a depth-wise convolution whose stride is its size
// (PixArt-Σ, Chen et al., arXiv 2403.04692: its compression of keys and values).
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x (batch, rows·columns, d) f32 or bf16, weight (d, 1, s, s) and bias (d) f32 → (batch, ⌊rows/s⌋·⌊columns/s⌋,
/// d) f32. Rows and columns at the end that fill no square are left out.
Tensor compress_tokens(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t rows,
                       int64_t columns);

}  // namespace linnet::ops
