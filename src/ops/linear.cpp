#include "ops/linear.h"

#include "core/tape.h"
#include "ops/activation.h"
#include "ops/cast.h"
#include "ops/reduce.h"

namespace linnet::ops {
namespace {

// Adds a·b to a gradient: in place, unless there is none yet, it is of another type, or somebody else sees its
// memory.
void add_product(const std::shared_ptr<GradSlot>& slot, const Shape& shape, DType dtype, const Device& device,
                 const MatrixView& a, const MatrixView& b) {
  const bool in_place = slot->value && slot->value->dtype() == dtype && slot->value->device() == device &&
                        !slot->value->shares_memory();
  Tensor result = in_place ? slot->value->reshape(shape) : Tensor::empty(shape, dtype, device);
  matmul(a, b, result, {.accumulate = in_place});
  if (!in_place) accumulate_grad(slot, result);
}

void add_weight_gradient(const std::shared_ptr<GradSlot>& slot, const Shape& shape, const Device& device,
                         const MatrixView& g, const MatrixView& x) {
  // oneDNN's product made for this is up to a quarter faster than that of the transpose, but adds to nothing.
  if (device.is_gpu() || slot->value || g.dtype != DType::bf16)
    return add_product(slot, shape, DType::f32, device, g.transposed(), x);
  Tensor result = Tensor::empty(shape);
  weight_gradient(g, x, result);
  accumulate_grad(slot, result);
}

// Gradients of y = x·Wᵀ + b: dx = g·W, dW = gᵀ·x, db = Σ g over rows. dW is always f32: it is what the
// optimiser adds up.
void linear_backward(const Tensor& gradient, const Tensor& x, const Tensor& weight,
                     const std::shared_ptr<GradSlot>& dx, const std::shared_ptr<GradSlot>& dweight,
                     const std::shared_ptr<GradSlot>& dbias) {
  const Tensor g = cast(gradient, x.dtype());
  const MatrixView g_rows{g.address(), g.dtype(), x.shape().rows(), weight.size(0), weight.size(0), 1};
  if (dx) add_product(dx, x.shape(), x.dtype(), x.device(), g_rows, as_matrix(weight));
  if (dweight) add_weight_gradient(dweight, weight.shape(), x.device(), g_rows, as_matrix(x));
  if (dbias) accumulate_grad(dbias, sum_rows(g.reshape({x.shape().rows(), weight.size(0)})));
}

}  // namespace

Tensor linear(const Tensor& given, const Tensor& weight, const Tensor& bias, Activation activation,
              DType out_dtype) {
  check(weight.shape().rank() == 2 && given.shape().rank() > 0 && given.shape()[-1] == weight.size(1),
        "a linear layer with weight {} cannot take an input of shape {}", to_string(weight.shape()),
        to_string(given.shape()));
  const Device device = given.on_gpu() ? given.device() : weight.device();
  const Tensor x = given.to(device);
  const bool record = wants_grad(x, weight, bias);
  if (record && activation == Activation::gelu_tanh)
    return gelu_tanh(linear(x, weight, bias, Activation::none, out_dtype));

  const Tensor w = cast(weight.detach().to(device), x.dtype());
  Tensor y = Tensor::empty(x.shape().with_last(weight.size(0)), out_dtype, device);
  matmul(as_matrix(x), as_matrix(w).transposed(), y, {.bias = bias.detach(), .activation = activation});
  if (record)
    record_backward(y, [x = x.detach(), w, dx = x.grad_slot(), dw = weight.grad_slot(),
                        db = bias.grad_slot()](const Tensor& g) { linear_backward(g, x, w, dx, dw, db); });
  return y;
}

Tensor linear(const Tensor& x, const PackedWeight& weight, const Tensor& bias, Activation activation,
              DType out_dtype) {
  Tensor y = Tensor::empty(x.shape().with_last(weight.out_features()), out_dtype, weight.device());
  const Tensor operand = cast(x.detach().to(weight.device()), weight.dtype());
  weight.apply(as_matrix(operand), y, {.bias = bias.detach(), .activation = activation});
  return y;
}

}  // namespace linnet::ops
