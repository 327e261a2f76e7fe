// x + gate·y: a branch joins the residual stream (adaLN-Zero).
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x (batch, tokens, d) f32; gate (batch, d) f32; y like x, f32 or bf16. Returns f32.
Tensor gated_residual(const Tensor& x, const Tensor& gate, const Tensor& y);
/// For what computes sum = x + gate·y in another way: its gradients.
void record_gated_residual(Tensor& sum, const Tensor& x, const Tensor& gate, const Tensor& y);

}  // namespace linnet::ops
