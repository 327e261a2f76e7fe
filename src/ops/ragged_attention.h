// Softmax attention of one set of tokens over another, as cross-attention over texts and as T5 has it: the
// sequences of a batch lie one after the other, each as long as it is, so that no work goes into padding.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace linnet::ops {

/// Where sequences begin: sequence i is tokens offsets[i] to offsets[i + 1], so the first is 0 and the last is
/// how many tokens there are.
using Offsets = std::vector<int64_t>;

/// The offsets of count sequences of the same length.
Offsets even_offsets(int64_t count, int64_t length);

struct RaggedAttention {
  Offsets queries, keys;  ///< of as many sequences; each has at least one key
  int64_t heads = 1;
  float scale = 1;  ///< of the scores
};

/// q (all queries, d), kv (all keys, 2d: keys, then values), f32 or bf16, on the GPU f16 too → (all queries, d)
/// of q's type. Sums are f32.
Tensor ragged_attention(const Tensor& q, const Tensor& kv, const RaggedAttention& how);

/// The same of keys and values apart, (all keys, d) each. bias (heads, 2L − 1) f32, for sequences of at most L
/// tokens: to the score of key j of query i is added entry L − 1 + j − i (T5's relative positions). May be
/// undefined.
Tensor ragged_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
                        const RaggedAttention& how);

}  // namespace linnet::ops
