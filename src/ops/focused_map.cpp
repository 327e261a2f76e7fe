#include "ops/focused_map.h"

#include "core/tape.h"
#include "ops/element.h"
#include "ops/focused_map_cpu.h"

namespace linnet::ops {
namespace {

void check_inputs(const Tensor& x, const Tensor& scale, const Tensor& positions) {
  check_type("focused_map", x);
  const int64_t width = scale.numel();
  check(x.shape().rank() == 3 && width > 0 && width <= x.size(2) && scale.shape() == Shape{1, 1, width},
        "focused_map: scale {} does not fit the channels of x {}", to_string(scale.shape()),
        to_string(x.shape()));
  check(!positions.defined() || positions.shape() == Shape{1, x.size(1), width},
        "focused_map: positions {} do not fit {} tokens of {} channels", to_string(positions.shape()),
        x.size(1), width);
  for (const Tensor& learned : {scale, positions})
    check(!learned.defined() || learned.dtype() == DType::f32,
          "focused_map: scale and positions are f32, not {}", name_of(learned.dtype()));
}

}  // namespace

Tensor focused_map(const Tensor& x, const Tensor& scale, const Tensor& positions,
                   FocusedActivation activation) {
  check_inputs(x, scale, positions);
  Tensor out = Tensor::empty(x.shape(), x.dtype());
  cpu::focused_map_forward(x, scale, positions, activation, out);
  if (wants_grad(x, scale, positions))
    record_backward(out, [x = x.detach(), scale = scale.detach(), positions = positions.detach(), activation,
                          dx_slot = x.grad_slot(), dscale_slot = scale.grad_slot(),
                          dpositions_slot = positions.grad_slot()](const Tensor& g) {
      Tensor dx = Tensor::empty(x.shape(), x.dtype()), dscale = Tensor::empty(scale.shape());
      Tensor dpositions = positions.defined() ? Tensor::empty(positions.shape()) : Tensor();
      cpu::focused_map_backward(g, x, scale, positions, activation, dx, dscale, dpositions);
      accumulate_grad(dx_slot, dx);
      accumulate_grad(dscale_slot, dscale);
      accumulate_grad(dpositions_slot, dpositions);
    });
  return out;
}

}  // namespace linnet::ops
