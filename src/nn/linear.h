// Fully connected layer.
#pragma once

#include "nn/parameter.h"
#include "ops/linear.h"

namespace linnet::nn {

class Linear {
 public:
  Linear() = default;
  Linear(int64_t in, int64_t out, Init weight_init = Init::xavier_uniform())
      : weight({out, in}, weight_init), bias({out}, Init::zero()) {}

  /// x (..., in) → (..., out), the product in x's type. Once frozen, and while nothing is recorded, it runs on a
  /// packed copy of the weight.
  Tensor forward(const Tensor& x, DType out_dtype, ops::Activation activation = ops::Activation::none) const;

  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    visitor(prefix + "weight", weight);
    visitor(prefix + "bias", bias);
  }

  Parameter weight, bias;

 private:
  mutable ops::PackedWeight packed_;
  mutable Tensor frozen_bias_;
};

}  // namespace linnet::nn
