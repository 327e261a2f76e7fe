// CPU kernels of softmax_attention; shapes are checked by the operation.
#pragma once

#include "core/tensor.h"

namespace linnet::ops::cpu {

/// Fills out and, for the backward pass, log_sums (batch·heads, tokens): log Σ exp(scores) of each row.
void softmax_attention_forward(const Tensor& qkv, int64_t heads, Tensor& out, Tensor& log_sums);
void softmax_attention_backward(const Tensor& g, const Tensor& qkv, const Tensor& out, const Tensor& log_sums,
                                int64_t heads, Tensor& dqkv);

}  // namespace linnet::ops::cpu
