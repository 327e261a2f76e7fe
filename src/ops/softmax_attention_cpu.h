// CPU kernels of softmax_attention; shapes are checked by the operation.
#pragma once

#include "ops/element.h"

namespace linnet::ops::cpu {

/// Of tensors (batch, tokens, ...) of one type, whose rows are equally long: q of n tokens, k and v of m.
struct SoftmaxInputs {
  Columns q, k, v;
};

/// Fills out (batch, n, d) and, for the backward pass, log_sums (batch·heads, n): log Σ exp(scores) of each
/// row.
void softmax_attention_forward(const SoftmaxInputs& in, int64_t heads, Tensor& out, Tensor& log_sums);
/// Fills the columns of `into`.
void softmax_attention_backward(const Tensor& g, const SoftmaxInputs& in, const Tensor& out,
                                const Tensor& log_sums, int64_t heads, SoftmaxInputs& into);

}  // namespace linnet::ops::cpu
