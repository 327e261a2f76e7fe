// Softmax attention of one head with many channels, as VAEs have it: a few hundred queries against all keys at
// a time, by two matrix products of the library. No tokens × tokens matrix is ever in memory. Not
// differentiable.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// q, k, v (batch, tokens, d) f32 or bf16, on the GPU f16 too → softmax(q·kᵀ/√d)·v of the same shape and type.
Tensor wide_attention(const Tensor& q, const Tensor& k, const Tensor& v);

}  // namespace linnet::ops
