// Fully connected layer.
#pragma once

#include "nn/parameter.h"
#include "ops/int8_linear.h"
#include "ops/linear.h"

namespace linnet::nn {

/// Hidden values of an MLP, rounded down as timm does, but for the error of a ratio that was a quotient.
inline int64_t mlp_width(int64_t width, double ratio) {
  return static_cast<int64_t>(static_cast<double>(width) * ratio + 1e-6);
}

class Linear {
 public:
  Linear() = default;
  Linear(int64_t in, int64_t out, Init weight_init = Init::xavier_uniform())
      : weight({out, in}, weight_init), bias({out}, Init::zero()) {}
  static Linear without_bias(int64_t in, int64_t out, Init weight_init);

  /// x (..., in) → (..., out), the product in x's type, or in 8 bits if the weight is and the CPU can. Once
  /// frozen, and while nothing is recorded, it runs on a packed copy of the weight. A weight in 8 bits must be
  /// frozen.
  /// What is packed lies where the weight lies: one that is on the CPU while x is on a GPU goes there for this
  /// product alone.
  /// A layer that is streamed keeps no packed copy (ops/streamed_linear.h): for models that run once where
  /// memory is short. Then a weight in 8 bits is multiplied as the floats that it stands for.
  Tensor forward(const Tensor& x, DType out_dtype, ops::Activation activation = ops::Activation::none) const;

  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    visitor(prefix + "weight", weight);
    if (bias.shape.rank() > 0) visitor(prefix + "bias", bias);
  }

  Parameter weight, bias;
  bool streamed = false;

 private:
  void pack(DType dtype, DType bias_dtype) const;
  bool is_packed_as(DType dtype) const;
  Tensor visiting(const Tensor& x, DType out_dtype, ops::Activation activation) const;

  mutable ops::PackedWeight packed_;
  mutable ops::PackedInt8Weight packed_int8_;
  mutable bool packed_from_int8_ = false;  // a weight may be frozen first and rounded to 8 bits later
  mutable Tensor frozen_bias_;
};

/// One in a transformer's block (Parameter::block_matrix).
class BlockLinear : public Linear {
 public:
  BlockLinear(int64_t in, int64_t out, Init weight_init = Init::xavier_uniform())
      : Linear(in, out, weight_init) {
    weight.block_matrix = true;
  }
};

/// second(gelu_tanh(first(x))), the hidden values in x's type: what follows attention in a transformer's block.
Tensor feed_forward(const Linear& first, const Linear& second, const Tensor& x, DType out_dtype);

}  // namespace linnet::nn
