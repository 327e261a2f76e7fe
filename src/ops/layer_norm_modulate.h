// DiT's modulated layer norm: LayerNorm(x)·(1 + scale) + shift, without learned affine (Peebles & Xie,
// adaLN-Zero).
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x (batch, tokens, d) f32 or bf16; shift, scale (batch, d) f32. Statistics in f32. Returns x's shape in
/// out_dtype.
Tensor layer_norm_modulate(const Tensor& x, const Tensor& shift, const Tensor& scale, float epsilon,
                           DType out_dtype);
/// For what computes y in another way: its gradients. statistics (batch·tokens, 2) f32 are, of each row, its
/// mean less its first value, and 1/σ.
void record_layer_norm_modulate(Tensor& y, const Tensor& x, const Tensor& shift, const Tensor& scale,
                                const Tensor& statistics);

}  // namespace linnet::ops
