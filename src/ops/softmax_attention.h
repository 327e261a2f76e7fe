// Softmax attention (DiT's), computed block by block with a running maximum and sum (Milakov & Gimelshein
// 2018; Dao et al. 2022): no tokens × tokens matrix is ever in memory, forward or backward.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// qkv (batch, tokens, 3d: q, k, v), f32 or bf16, on the GPU f16 too; heads divides d; scores are scaled by
/// 1/√(d/heads). Returns (batch, tokens, d) of the same type. Sums are f32.
Tensor softmax_attention(const Tensor& qkv, int64_t heads);

/// The same of queries (batch, n, d) over keys and values (batch, m, d) of their own, all of one type. Returns
/// (batch, n, d).
Tensor softmax_attention(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads);

}  // namespace linnet::ops
