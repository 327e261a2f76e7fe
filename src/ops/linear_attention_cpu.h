// CPU kernels of linear_attention; shapes are checked by the operation.
#pragma once

#include "ops/linear_attention.h"

namespace linnet::ops::cpu {

/// Fills out, and state (batch·heads, head_size + 1, padded head_size): Σ k̂ᵀv, and Σ k̂ as its last row.
void linear_attention_forward(const Tensor& q, const Tensor& kv, int64_t heads, FeatureMap map, Tensor& out,
                              Tensor& state);
void linear_attention_backward(const Tensor& g, const Tensor& q, const Tensor& kv, const Tensor& state,
                               int64_t heads, FeatureMap map, Tensor& dq, Tensor& dkv);

}  // namespace linnet::ops::cpu
