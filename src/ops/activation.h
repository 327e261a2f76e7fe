// SiLU and GELU (tanh form), element by element.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// x·σ(x), f32 or bf16 in, out_dtype out.
Tensor silu(const Tensor& x, DType out_dtype);
/// ½x(1 + tanh(√(2/π)(x + 0.044715x³))), same type out.
Tensor gelu_tanh(const Tensor& x);

}  // namespace linnet::ops
