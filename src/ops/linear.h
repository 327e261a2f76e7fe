// y = x·Wᵀ + b, the product in the type of x, with the activation fused where no gradient is wanted.
#pragma once

#include "ops/matmul.h"

namespace linnet::ops {

/// x (..., in) f32, bf16 or, on a GPU, f16; weight (out, in) of any float type (converted to x's); bias (out)
/// of any float type and on any device, or undefined. Returns (..., out) of type out_dtype, on the GPU if x or
/// weight lies there.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation activation,
              DType out_dtype);

/// The same with a weight packed beforehand; not differentiable.
Tensor linear(const Tensor& x, const PackedWeight& weight, const Tensor& bias, Activation activation,
              DType out_dtype);

/// A linear layer's, as linear() takes them.
struct LinearWeights {
  const Tensor &weight, &bias;
};

/// gelu_tanh(x·W₁ᵀ + b₁)·W₂ᵀ + b₂, the hidden values in x's type: as by two linear layers, but that on a GPU
/// the products store GELU, and multiply by its gradient, themselves.
Tensor feed_forward(const Tensor& x, const LinearWeights& first, const LinearWeights& second, DType out_dtype);

}  // namespace linnet::ops
