#include "ops/layer_norm_modulate.h"

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/layer_norm_modulate_cpu.h"

namespace linnet::ops {

namespace {

void forward(const Tensor& x, const Tensor& shift, const Tensor& scale, float epsilon, Tensor& y,
             Tensor& statistics) {
  if (!x.on_gpu()) return cpu::layer_norm_modulate_forward(x, shift, scale, epsilon, y, statistics);
  gpu_kernels().norm.modulate(x.view(), shift.view(), scale.view(), epsilon, y.view(), statistics.view(),
                              x.size(0), x.size(1), x.size(2));
}

void backward(const Tensor& g, const Tensor& x, const Tensor& scale, const Tensor& statistics, Tensor& dx,
              Tensor& dshift, Tensor& dscale) {
  if (!x.on_gpu()) return cpu::layer_norm_modulate_backward(g, x, scale, statistics, dx, dshift, dscale);
  gpu_kernels().norm.modulate_backward(g.view(), x.view(), scale.view(), statistics.view(), dx.view(),
                                       dshift.view(), dscale.view(), x.size(0), x.size(1), x.size(2));
}

}  // namespace

Tensor layer_norm_modulate(const Tensor& x, const Tensor& shift_, const Tensor& scale_, float epsilon,
                           DType out_dtype) {
  const Tensor shift = shift_.to(x.device()), scale = scale_.to(x.device());
  check(x.shape().rank() == 3 && shift.shape() == Shape{x.size(0), x.size(2)} && scale.shape() == shift.shape(),
        "layer_norm_modulate: x {} does not go with shift {} and scale {}", to_string(x.shape()),
        to_string(shift.shape()), to_string(scale.shape()));
  check_type("layer_norm_modulate", x);
  check_type("layer_norm_modulate", out_dtype, x.device());
  const int64_t rows = x.size(0) * x.size(1);
  Tensor y = Tensor::empty(x.shape(), out_dtype, x.device());
  Tensor statistics = Tensor::empty({rows, 2}, DType::f32, x.device());
  forward(x, shift, scale, epsilon, y, statistics);
  record_layer_norm_modulate(y, x, shift, scale, statistics);
  return y;
}

void record_layer_norm_modulate(Tensor& y, const Tensor& x, const Tensor& shift, const Tensor& scale,
                                const Tensor& statistics) {
  if (!wants_grad(x, shift, scale)) return;
  record_backward(y, [x = x.detach(), scale = scale.detach(), statistics, dx_slot = x.grad_slot(),
                      dshift_slot = shift.grad_slot(), dscale_slot = scale.grad_slot()](const Tensor& g) {
    Tensor dx = Tensor::empty(x.shape(), x.dtype(), x.device());
    Tensor dshift = Tensor::empty(scale.shape(), DType::f32, x.device());
    Tensor dscale = Tensor::empty(scale.shape(), DType::f32, x.device());
    backward(g, x, scale, statistics, dx, dshift, dscale);
    accumulate_grad(dx_slot, dx);
    accumulate_grad(dshift_slot, dshift);
    accumulate_grad(dscale_slot, dscale);
  });
}

}  // namespace linnet::ops
