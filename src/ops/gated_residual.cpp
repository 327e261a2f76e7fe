#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gated_residual.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/element.h"
#include "ops/gated_residual.h"
#include "ops/gpu_kernels.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

void add_gated(const float* x, const float* gate, const void* y_, DType y_type, int64_t rows, int64_t n,
               float* out) {
  with_type(y_, y_type, [&](auto* y) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r, x += n, y += n, out += n)
      for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
        store(hn::MulAdd(load(d, gate + i), load(d, y + i), load(d, x + i)), d, out + i);
      });
  });
}

// dy = g·gate in y's type; dgate += g·y.
void gated_backward(const void* g_, DType g_type, const float* gate, const void* y_, DType y_type, int64_t rows,
                    int64_t n, void* dy_, float* dgate) {
  for (int64_t i = 0; i < n; ++i) dgate[i] = 0.0f;
  with_type(g_, g_type, [&](auto* g) HWY_ATTR {
    with_type(y_, y_type, [&](auto* y) HWY_ATTR {
      with_type(dy_, y_type, [&](auto* dy) HWY_ATTR {
        for (int64_t r = 0; r < rows; ++r, g += n, y += n, dy += n)
          for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
            const auto gi = load(d, g + i);
            store(hn::MulAdd(gi, load(d, y + i), load(d, dgate + i)), d, dgate + i);
            store(hn::Mul(gi, load(d, gate + i)), d, dy + i);
          });
      });
    });
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops {

HWY_EXPORT(add_gated);
HWY_EXPORT(gated_backward);

namespace {

Tensor forward(const Tensor& x, const Tensor& gate, const Tensor& y) {
  const int64_t batch = x.size(0), tokens = x.size(1), n = x.size(2);
  Tensor out = Tensor::empty(x.shape(), DType::f32, x.device());
  if (x.on_gpu()) {
    gpu_kernels().norm.gated_residual(x.view(), gate.view(), y.view(), out.view(), batch, tokens, n);
    return out;
  }
  const float *x_data = x.data<float>(), *gate_data = gate.data<float>();
  float* out_data = out.mutable_data<float>();
  parallel_for(batch * tokens, 16, [&](int64_t begin, int64_t end) {
    while (begin < end) {  // one sample's rows at a time
      const int64_t sample = begin / tokens, stop = std::min(end, (sample + 1) * tokens);
      HWY_DYNAMIC_DISPATCH(add_gated)
      (x_data + begin * n, gate_data + sample * n, element(y, begin * n), y.dtype(), stop - begin, n,
       out_data + begin * n);
      begin = stop;
    }
  });
  return out;
}

void backward(const Tensor& g, const Tensor& gate, const Tensor& y, Tensor& dy, Tensor& dgate) {
  const int64_t batch = y.size(0), tokens = y.size(1), n = y.size(2);
  if (y.on_gpu())
    return gpu_kernels().norm.gated_residual_backward(g.view(), gate.view(), y.view(), dy.view(), dgate.view(),
                                                      batch, tokens, n);
  const float* gate_values = gate.data<float>();
  float* dgate_values = dgate.mutable_data<float>();
  parallel_for(batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) HWY_DYNAMIC_DISPATCH(gated_backward)
    (element(g, b * tokens * n), g.dtype(), gate_values + b * n, element(y, b * tokens * n), y.dtype(), tokens,
     n, element(dy, b * tokens * n), dgate_values + b * n);
  });
}

}  // namespace

Tensor gated_residual(const Tensor& x, const Tensor& gate, const Tensor& y) {
  check(x.shape().rank() == 3 && y.shape() == x.shape() && gate.shape() == Shape{x.size(0), x.size(2)},
        "gated_residual: x {}, gate {} and y {} do not go together", to_string(x.shape()),
        to_string(gate.shape()), to_string(y.shape()));
  check_type("gated_residual", y);
  check(x.dtype() == DType::f32 && gate.dtype() == DType::f32,
        "gated_residual: x and gate are of {} and {}, not f32", name_of(x.dtype()), name_of(gate.dtype()));
  Tensor out = forward(x, gate, y);
  record_gated_residual(out, x, gate, y);
  return out;
}

void record_gated_residual(Tensor& sum, const Tensor& x, const Tensor& gate, const Tensor& y) {
  if (!wants_grad(x, gate, y)) return;
  record_backward(sum, [gate = gate.detach(), y = y.detach(), dx = x.grad_slot(), dgate_slot = gate.grad_slot(),
                        dy_slot = y.grad_slot()](const Tensor& g) {
    Tensor dy = Tensor::empty(y.shape(), y.dtype(), y.device());
    Tensor dgate = Tensor::empty(gate.shape(), DType::f32, y.device());
    backward(g, gate, y, dy, dgate);
    accumulate_grad(dx, g);
    accumulate_grad(dy_slot, dy);
    accumulate_grad(dgate_slot, dgate);
  });
}

}  // namespace linnet::ops
#endif
