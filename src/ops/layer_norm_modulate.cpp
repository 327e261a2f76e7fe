#include "ops/layer_norm_modulate.h"

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/element.h"
#include "ops/layer_norm_modulate_cpu.h"

namespace linnet::ops {

Tensor layer_norm_modulate(const Tensor& x, const Tensor& shift, const Tensor& scale, float epsilon,
                           DType out_dtype) {
  check(x.shape().rank() == 3 && shift.shape() == Shape{x.size(0), x.size(2)} && scale.shape() == shift.shape(),
        "layer_norm_modulate: x {} does not go with shift {} and scale {}", to_string(x.shape()),
        to_string(shift.shape()), to_string(scale.shape()));
  check_type("layer_norm_modulate", x);
  check_type("layer_norm_modulate", out_dtype);
  const int64_t rows = x.size(0) * x.size(1);
  Tensor y = Tensor::empty(x.shape(), out_dtype);
  Tensor statistics = Tensor::empty({rows, 2});  // of each row: mean less its first value, 1/σ
  cpu::layer_norm_modulate_forward(x, shift, scale, epsilon, y, statistics);
  if (wants_grad(x, shift, scale))
    record_backward(y, [x = x.detach(), scale = scale.detach(), statistics, dx_slot = x.grad_slot(),
                        dshift_slot = shift.grad_slot(), dscale_slot = scale.grad_slot()](const Tensor& g) {
      Tensor dx = Tensor::empty(x.shape(), x.dtype());
      Tensor dshift = Tensor::empty(scale.shape()), dscale = Tensor::empty(scale.shape());
      cpu::layer_norm_modulate_backward(g, x, scale, statistics, dx, dshift, dscale);
      accumulate_grad(dx_slot, dx);
      accumulate_grad(dshift_slot, dshift);
      accumulate_grad(dscale_slot, dscale);
    });
  return y;
}

}  // namespace linnet::ops
