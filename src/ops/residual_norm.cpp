#include "ops/residual_norm.h"

#include "core/tape.h"
#include "ops/arrange.h"
#include "ops/gated_residual.h"
#include "ops/gpu_kernels.h"
#include "ops/layer_norm_modulate.h"

namespace linnet::ops {
namespace {

void record_join(Tensor& sum, const Residual& s) {
  if (s.gate.defined()) return record_gated_residual(sum, s.x, s.gate, s.branch);
  if (wants_grad(s.x, s.branch))
    record_backward(sum, [dx = s.x.grad_slot(), dbranch = s.branch.grad_slot()](const Tensor& g) {
      accumulate_grad(dx, g);
      accumulate_grad(dbranch, g);
    });
}

JoinedNorm in_one_kernel(const Residual& s, const Tensor& shift, const Tensor& scale, float epsilon,
                         DType out_dtype) {
  const int64_t batch = s.x.size(0), tokens = s.x.size(1), d = s.x.size(2);
  const Device& device = s.x.device();
  JoinedNorm result{Tensor::empty(s.x.shape(), DType::f32, device),
                    Tensor::empty(s.x.shape(), out_dtype, device)};
  const Tensor statistics = Tensor::empty({batch * tokens, 2}, DType::f32, device);
  gpu_kernels().norm.join_and_modulate(s.x.view(), s.gate.view(), s.branch.view(), result.x.view(),
                                       shift.view(), scale.view(), epsilon, result.normed.view(),
                                       statistics.view(), batch, tokens, d);
  record_join(result.x, s);
  record_layer_norm_modulate(result.normed, result.x, shift, scale, statistics);
  return result;
}

// What does not is left to the two operations, which also say what is wrong with it.
bool fits_one_kernel(const Residual& s, const Tensor& shift, const Tensor& scale) {
  if (!s.x.on_gpu() || !s.branch.defined() || s.x.shape().rank() != 3 || s.x.dtype() != DType::f32)
    return false;
  const auto is_row = [&](const Tensor& t) {
    return t.on_gpu() && t.dtype() == DType::f32 && t.shape() == Shape{s.x.size(0), s.x.size(2)};
  };
  const bool branch_fits = s.branch.on_gpu() && s.branch.shape() == s.x.shape() &&
                           (s.gate.defined() ? is_row(s.gate) : s.branch.dtype() == DType::f32);
  return branch_fits && is_row(shift) && is_row(scale) && gpu_kernels().norm.joins(s.x.size(2));
}

}  // namespace

Tensor joined(const Residual& s) {
  if (!s.branch.defined()) return s.x;
  return s.gate.defined() ? gated_residual(s.x, s.gate, s.branch) : add(s.x, s.branch);
}

JoinedNorm join_and_norm(Residual stream, const Tensor& shift, const Tensor& scale, float epsilon,
                         DType out_dtype) {
  if (fits_one_kernel(stream, shift, scale)) return in_one_kernel(stream, shift, scale, epsilon, out_dtype);
  Tensor x = joined(stream);
  stream = {};  // its memory may be wanted for the norm
  Tensor normed = layer_norm_modulate(x, shift, scale, epsilon, out_dtype);
  return {std::move(x), std::move(normed)};
}

}  // namespace linnet::ops
