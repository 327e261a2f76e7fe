// SiLU and GELU (tanh form), element by element.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x·σ(x), f32 or bf16 in, out_dtype out.
Tensor silu(const Tensor& x, DType out_dtype);
/// ½x(1 + tanh(√(2/π)(x + 0.044715x³))), same type out.
Tensor gelu_tanh(const Tensor& x);
/// gelu_tanh(gate)·x of one shape and type (Shazeer, arXiv 2002.05202: GEGLU, as T5 v1.1 has it).
Tensor gated_gelu(const Tensor& gate, const Tensor& x);

}  // namespace linnet::ops
