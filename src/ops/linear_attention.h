// Linear attention (Katharopoulos et al. 2020; LiT, arXiv 2501.12976, eq. 3): O(tokens) instead of O(tokens²),
// alone or with LiT's depth-wise convolution of the values added.
//
//   per head:  oᵢ = q̂ᵢ (Σⱼ k̂ⱼᵀ vⱼ) / (q̂ᵢ · Σⱼ k̂ⱼ)  [+ conv(v)ᵢ],  q̂ and k̂ by a feature map of q and k
//
// All sums are f32 whatever the inputs are: over 10⁴ tokens they leave the range where 16 bits suffice.
//
// The denominator z = q̂ᵢ·Σⱼ k̂ⱼ. relu + 1e-6 is at least 1e-6, so LiT's ratio is taken as it is. Features that
// were mapped before (focused_map.h) may be 1e-18 where they are flat, and negative with GELU, so that z may
// vanish: it is moved away from 0 by 1e-6 a token, to z + 1e-6·tokens, or to z − 1e-6·tokens below 0. Where z ≥
// 0 that is what FLatten computes (means over the tokens, + 1e-6); below 0 FLatten's would meet a pole at z =
// −1e-6·tokens.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// What q and k go through before they are multiplied.
enum class FeatureMap : uint8_t {
  relu,  ///< relu(x) + 1e-6
  none,  ///< they are features already; the denominator is guarded
};

/// q (batch, tokens, d), kv (batch, tokens, 2d: k then v), f32 or bf16 alike; heads divides d.
/// Returns (batch, tokens, d) of q's type.
Tensor linear_attention(const Tensor& q, const Tensor& kv, int64_t heads, FeatureMap map = FeatureMap::relu);

/// The same plus a depth-wise convolution of v over the rows × columns grid of tokens, "same" padding:
/// weight (d/heads, 1, k, k) with k = 1, 3, 5 or 7 and bias (d/heads), f32, shared by all heads.
Tensor linear_attention_conv(const Tensor& q, const Tensor& kv, const Tensor& weight, const Tensor& bias,
                             int64_t heads, int64_t rows, int64_t columns, FeatureMap map = FeatureMap::relu);

}  // namespace linnet::ops
