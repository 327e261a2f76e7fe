#include "ops/linear.h"

#include "core/tape.h"
#include "ops/activation.h"
#include "ops/cast.h"
#include "ops/gpu_kernels.h"
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

using Slot = std::shared_ptr<GradSlot>;

// Gradients of y = x·Wᵀ + b: dx = g·W, dW = gᵀ·x, db = Σ g over rows; g (rows, out) of x's type. dW is always
// f32: it is what the optimiser adds up.
void learned_backward(const Tensor& g, const Tensor& x, const Tensor& weight, const Slot& dweight,
                      const Slot& dbias) {
  if (dweight) add_weight_gradient(dweight, weight.shape(), x.device(), as_matrix(g), as_matrix(x));
  if (dbias) accumulate_grad(dbias, sum_rows(g));
}
void linear_backward(const Tensor& gradient, const Tensor& x, const Tensor& weight, const Slot& dx,
                     const Slot& dweight, const Slot& dbias) {
  const Tensor g = cast(gradient, x.dtype()).reshape({x.shape().rows(), weight.size(0)});
  if (dx) add_product(dx, x.shape(), x.dtype(), x.device(), as_matrix(g), as_matrix(weight));
  learned_backward(g, x, weight, dweight, dbias);
}

// What the gradient of the two layers together needs of them.
struct FeedForward {
  Tensor x, first, second;  // the weights in x's type
  Tensor kept, hidden;      // before GELU, and after it
  Slot dx, dfirst, dfirst_bias, dsecond, dsecond_bias;

  void backward(const Tensor& gradient) const {
    const int64_t rows = x.shape().rows();
    const Tensor g = cast(gradient, x.dtype()).reshape({rows, second.size(0)});
    learned_backward(g, hidden, second, dsecond, dsecond_bias);
    if (!dx && !dfirst && !dfirst_bias) return;
    const Tensor inner = Tensor::empty({rows, first.size(0)}, x.dtype(), x.device());
    gpu_kernels().product.matmul_gelu_gradient(as_matrix(g), as_matrix(second), tf32_is_allowed(), kept.view(),
                                               inner.view());
    linear_backward(inner, x, first, dx, dfirst, dfirst_bias);
  }
};

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

Tensor feed_forward(const Tensor& x, const LinearWeights& first, const LinearWeights& second, DType out_dtype) {
  const bool record = wants_grad(x, first.weight, first.bias) || wants_grad(x, second.weight, second.bias);
  if (!record || !x.on_gpu() || x.numel() == 0) {
    const Tensor hidden = linear(x, first.weight, first.bias, Activation::gelu_tanh, x.dtype());
    return linear(hidden, second.weight, second.bias, Activation::none, out_dtype);
  }
  check(first.weight.shape().rank() == 2 && second.weight.shape().rank() == 2 &&
            x.shape()[-1] == first.weight.size(1) && first.weight.size(0) == second.weight.size(1),
        "layers with weights {} and {} cannot follow each other on an input of shape {}",
        to_string(first.weight.shape()), to_string(second.weight.shape()), to_string(x.shape()));
  const auto as_x = [&](const Tensor& t) {
    return t.defined() ? cast(t.detach().to(x.device()), x.dtype()) : Tensor();
  };
  const Shape inner = x.shape().with_last(first.weight.size(0));
  const FeedForward f{x.detach(),
                      as_x(first.weight),
                      as_x(second.weight),
                      Tensor::empty(inner, x.dtype(), x.device()),
                      Tensor::empty(inner, x.dtype(), x.device()),
                      x.grad_slot(),
                      first.weight.grad_slot(),
                      first.bias.grad_slot(),
                      second.weight.grad_slot(),
                      second.bias.grad_slot()};
  gpu_kernels().product.matmul_gelu(as_matrix(x), as_matrix(f.first).transposed(), as_x(first.bias).view(),
                                    tf32_is_allowed(), f.kept.view(), f.hidden.view());
  Tensor y = Tensor::empty(x.shape().with_last(second.weight.size(0)), out_dtype, x.device());
  matmul(as_matrix(f.hidden), as_matrix(f.second).transposed(), y, {.bias = second.bias.detach()});
  record_backward(y, [f](const Tensor& g) { f.backward(g); });
  return y;
}

}  // namespace linnet::ops
