#include "ops/focused_map.h"

#include "core/tape.h"
#include "ops/element.h"
#include "ops/focused_map_cpu.h"
#include "ops/gpu_kernels.h"

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

// What is mapped, and by what; positions may be undefined.
struct Mapped {
  Tensor x, scale, positions;
  FocusedActivation activation;

  Mapped detached() const { return {x.detach(), scale.detach(), positions.detach(), activation}; }
};

Tensor forward(const Mapped& in) {
  const Tensor& x = in.x;
  Tensor out = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.on_gpu())
    gpu_kernels().focused_map.forward(x.view(), in.scale.view(), in.positions.view(),
                                      in.activation == FocusedActivation::gelu, out.view(), x.size(0),
                                      x.size(1), x.size(2), in.scale.numel());
  else
    cpu::focused_map_forward(x, in.scale, in.positions, in.activation, out);
  return out;
}

struct Gradients {
  Tensor dx, dscale, dpositions;
};

Gradients backward(const Tensor& g, const Mapped& in) {
  const Tensor& x = in.x;
  Gradients d{Tensor::empty(x.shape(), x.dtype(), x.device()),
              Tensor::empty(in.scale.shape(), DType::f32, x.device()),
              {}};
  if (in.positions.defined()) d.dpositions = Tensor::empty(in.positions.shape(), DType::f32, x.device());
  if (x.on_gpu())
    gpu_kernels().focused_map.backward(g.view(), x.view(), in.scale.view(), in.positions.view(),
                                       in.activation == FocusedActivation::gelu, d.dx.view(), d.dscale.view(),
                                       d.dpositions.view(), x.size(0), x.size(1), x.size(2), in.scale.numel());
  else
    cpu::focused_map_backward(g, x, in.scale, in.positions, in.activation, d.dx, d.dscale, d.dpositions);
  return d;
}

}  // namespace

Tensor focused_map(const Tensor& x, const Tensor& scale, const Tensor& positions,
                   FocusedActivation activation) {
  check_inputs(x, scale, positions);
  // What a streamed model learned may lie elsewhere.
  const Mapped in{x, scale.to(x.device()), positions.to(x.device()), activation};
  Tensor out = forward(in);
  if (wants_grad(x, scale, positions))
    record_backward(out, [in = in.detached(), dx_slot = x.grad_slot(), dscale_slot = scale.grad_slot(),
                          dpositions_slot = positions.grad_slot()](const Tensor& g) {
      const Gradients d = backward(g, in);
      accumulate_grad(dx_slot, d.dx);
      accumulate_grad(dscale_slot, d.dscale);
      accumulate_grad(dpositions_slot, d.dpositions);
    });
  return out;
}

}  // namespace linnet::ops
