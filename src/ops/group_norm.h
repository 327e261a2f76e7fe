// Group normalisation (Wu & He 2018) of pictures (n, height, width, channels), with SiLU in the same pass. In
// two steps, moments and their use, because a picture that is worked on in tiles is normalised by the moments
// of the whole. Not differentiable.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// Mean and variance (n, groups, 2) f32 over each group of channels, which lie side by side. x is f32 or bf16
/// and has (groups divides channels). Sums are of differences from one of the values, so that a large mean
/// costs no digits: in f32 over parts of a picture, in f64 over the parts.
Tensor group_moments(const Tensor& x, int64_t groups);

/// (x − mean)/√(variance + epsilon)·weight + bias, then x·σ(x) if silu; weight and bias (channels) f32. The
/// result is of x's type, and takes x's memory if nobody else holds it. moments are for x's n, or for one that
/// all share.
Tensor normalize_groups(Tensor x, const Tensor& moments, const Tensor& weight, const Tensor& bias,
                        float epsilon, bool silu);

}  // namespace linnet::ops
