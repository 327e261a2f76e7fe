#include "nn/linear.h"

#include "core/tape.h"
#include "ops/streamed_linear.h"

namespace linnet::nn {
namespace {

// A convolution whose stride is its size (patch embedding) is a linear layer on flattened patches.
Tensor as_matrix(const Tensor& weight) {
  return weight.reshape({weight.size(0), weight.numel() / weight.size(0)});
}

}  // namespace

Linear Linear::without_bias(int64_t in, int64_t out, Init weight_init) {
  Linear result;
  result.weight = {{out, in}, weight_init};
  return result;
}

Tensor Linear::forward(const Tensor& x, DType out_dtype, ops::Activation activation) const {
  if (weight.frozen && !Tape::active()) {
    if (streamed) {
      check(!bias.value.defined() && activation == ops::Activation::none,
            "a streamed layer has neither bias nor activation");
      return ops::streamed_linear(x, weight.value, weight.scale, out_dtype);
    }
    pack(x.dtype());
    return packed_int8_.defined() ? ops::linear(x, packed_int8_, frozen_bias_, activation, out_dtype)
                                  : ops::linear(x, packed_, frozen_bias_, activation, out_dtype);
  }
  check(weight.value.dtype() != DType::i8, "weights in 8 bits do not learn: convert the model to f32 first");
  return ops::linear(x, as_matrix(weight.value), bias.value, activation, out_dtype);
}

void Linear::pack(DType dtype) const {
  const bool eight_bits = weight.value.dtype() == DType::i8;
  if (packed_int8_.defined() && eight_bits) return;
  if (packed_.defined() && packed_.dtype() == dtype && !packed_int8_.defined()) return;
  frozen_bias_ = bias.value.defined() ? bias.value.detach().to(DType::f32) : Tensor();
  packed_ = {};
  packed_int8_ = {};
  if (!eight_bits)
    packed_ = ops::PackedWeight(as_matrix(weight.value), dtype);
  else if (ops::have_int8_products())
    packed_int8_ = ops::PackedInt8Weight({weight.value, weight.scale});
  else
    packed_ = ops::PackedWeight(ops::dequantize({weight.value, weight.scale}, dtype), dtype);
}

}  // namespace linnet::nn
