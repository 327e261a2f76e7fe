#include "nn/linear.h"

#include "core/tape.h"

namespace linnet::nn {

Tensor Linear::forward(const Tensor& x, DType out_dtype, ops::Activation activation) const {
  // A convolution whose stride is its size (patch embedding) is a linear layer on flattened patches.
  const Shape matrix{weight.shape[0], weight.shape.numel() / weight.shape[0]};
  if (weight.frozen && !Tape::active()) {
    if (!packed_.defined() || packed_.dtype() != x.dtype()) {
      packed_ = ops::PackedWeight(weight.value.reshape(matrix), x.dtype());
      frozen_bias_ = bias.value.detach().to(DType::f32);
    }
    return ops::linear(x, packed_, frozen_bias_, activation, out_dtype);
  }
  return ops::linear(x, weight.value.reshape(matrix), bias.value, activation, out_dtype);
}

}  // namespace linnet::nn
