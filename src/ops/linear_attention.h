// ReLU linear attention (LiT, arXiv 2501.12976, eq. 3; Katharopoulos et al. 2020): O(tokens) instead of O(tokens²),
// alone or with LiT's depth-wise convolution of the values added.
//
//   q̂ = relu(q) + 1e-6, k̂ = relu(k) + 1e-6, per head:  oᵢ = q̂ᵢ (Σⱼ k̂ⱼᵀ vⱼ) / (q̂ᵢ · Σⱼ k̂ⱼ)  [+ conv(v)ᵢ]
//
// All sums are f32 whatever the inputs are: over 10⁴ tokens they leave the range where 16 bits suffice.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// q (batch, tokens, d), kv (batch, tokens, 2d: k then v), f32 or bf16 alike; heads divides d.
/// Returns (batch, tokens, d) of q's type.
Tensor linear_attention(const Tensor& q, const Tensor& kv, int64_t heads);

/// The same plus a depth-wise convolution of v over the rows × columns grid of tokens, "same" padding:
/// weight (d/heads, 1, k, k) with k = 1, 3, 5 or 7 and bias (d/heads), f32, shared by all heads.
Tensor linear_attention_conv(const Tensor& q, const Tensor& kv, const Tensor& weight, const Tensor& bias,
                             int64_t heads, int64_t rows, int64_t columns);

}  // namespace linnet::ops
