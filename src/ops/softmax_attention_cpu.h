// CPU kernels of softmax_attention; shapes are checked by the operation.
#pragma once

#include "ops/element.h"

namespace linnet::ops::cpu {

/// Of tensors (batch, tokens, ...) of one type, whose rows are equally long: q of n tokens, k and v of m.
struct SoftmaxInputs {
  Columns q, k, v;
};

/// Fills out (batch, n, d) and, for the backward pass, sums (2, batch·heads, n): the largest score of each row,
/// and 1/Σ exp(scores − that). The logarithm of the sum, added to a score beyond 10⁷, would be lost.
void softmax_attention_forward(const SoftmaxInputs& in, int64_t heads, Tensor& out, Tensor& sums);
/// Fills the columns of `into`.
void softmax_attention_backward(const Tensor& g, const SoftmaxInputs& in, const Tensor& out, const Tensor& sums,
                                int64_t heads, SoftmaxInputs& into);

}  // namespace linnet::ops::cpu
