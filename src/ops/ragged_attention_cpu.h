// CPU kernels of ragged_attention; shapes are checked by the operation.
#pragma once

#include "ops/element.h"
#include "ops/ragged_attention.h"

namespace linnet::ops::cpu {

struct RaggedInputs {
  Columns q, k, v;
  Tensor bias;  // may be undefined
};

/// Fills out and, for the backward pass, sums (2, heads, all queries): the largest score of each row, and
/// 1/Σ exp(scores − that), as in softmax_attention_cpu.h.
void ragged_attention_forward(const RaggedInputs& in, const RaggedAttention& how, Tensor& out, Tensor& sums);

/// Fills the columns of q, k and v of `into`, and its bias, if that is wanted.
void ragged_attention_backward(const Tensor& g, const RaggedInputs& in, const RaggedAttention& how,
                               const Tensor& out, const Tensor& sums, RaggedInputs& into);

}  // namespace linnet::ops::cpu
