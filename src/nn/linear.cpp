#include "nn/linear.h"

#include "core/recording.h"
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
    if (x.on_gpu() && !weight.value.on_gpu()) return visiting(x, out_dtype, activation);
    pack(x.dtype(), out_dtype);
    return packed_int8_.defined() ? ops::linear(x, packed_int8_, frozen_bias_, activation, out_dtype)
                                  : ops::linear(x, packed_, frozen_bias_, activation, out_dtype);
  }
  check(weight.value.dtype() != DType::i8, "weights in 8 bits do not learn: convert the model to f32 first");
  return ops::linear(x, as_matrix(weight.value), bias.value, activation, out_dtype);
}

Tensor feed_forward(const Linear& first, const Linear& second, const Tensor& x, DType out_dtype) {
  const auto may_learn = [](const Linear& layer) { return layer.weight.value.dtype() != DType::i8; };
  if (!Tape::active() || !may_learn(first) || !may_learn(second))
    return second.forward(first.forward(x, x.dtype(), ops::Activation::gelu_tanh), out_dtype);
  return ops::feed_forward(x, {as_matrix(first.weight.value), first.bias.value},
                           {as_matrix(second.weight.value), second.bias.value}, out_dtype);
}

// The weight comes to x's GPU for this product.
Tensor Linear::visiting(const Tensor& x, DType out_dtype, ops::Activation activation) const {
  if (is_recording()) fail("a recording would keep a copy of every matrix that visits the GPU");
  const Tensor stored = weight.value.detach().to(x.device());
  const Tensor floats =
      stored.dtype() == DType::i8 ? ops::dequantize({stored, weight.scale}, x.dtype()) : stored;
  return ops::linear(x, as_matrix(floats), bias.value.detach(), activation, out_dtype);
}

bool Linear::is_packed_as(DType dtype) const {
  if (packed_from_int8_ != (weight.value.dtype() == DType::i8)) return false;
  if (packed_int8_.defined()) return !weight.value.on_gpu();
  return packed_.defined() && packed_.dtype() == dtype && packed_.device() == weight.value.device();
}

void Linear::pack(DType dtype, DType bias_dtype) const {
  const Device& device = weight.value.device();
  // A GPU's products want a bias of their result's type, others f32.
  const DType bias_type = device.is_gpu() ? bias_dtype : DType::f32;
  if (is_packed_as(dtype) && (!frozen_bias_.defined() || frozen_bias_.dtype() == bias_type)) return;
  frozen_bias_ = bias.value.defined() ? bias.value.detach().to(device).to(bias_type) : Tensor();
  if (is_packed_as(dtype)) return;
  packed_ = {};
  packed_int8_ = {};
  packed_from_int8_ = weight.value.dtype() == DType::i8;
  if (!packed_from_int8_)
    packed_ = ops::PackedWeight(as_matrix(weight.value), dtype);
  else if (ops::have_int8_products(device))
    packed_int8_ = ops::PackedInt8Weight({weight.value, weight.scale});
  else
    packed_ = ops::PackedWeight(ops::dequantize({weight.value, weight.scale}, dtype), dtype);
}

}  // namespace linnet::nn
