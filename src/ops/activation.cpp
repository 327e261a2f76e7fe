#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/activation.cpp"
#include <hwy/foreach_target.h>

#include <type_traits>

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/activation-inl.h"
#include "ops/activation.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

template <class F>
void forward(const void* in, DType in_type, void* out, DType out_type, int64_t n) {
  with_type(in, in_type, [&](auto* x) HWY_ATTR {
    with_type(out, out_type, [&](auto* y) HWY_ATTR {
      for_lanes(n, [&](auto d, int64_t i) HWY_ATTR { store(activate<F>(d, load(d, x + i)), d, y + i); });
    });
  });
}

// x, but no further out than ±80, where σ is flat: beyond, the slope of z would overflow, and 0 times infinity
// is no number. NaN stays NaN.
template <class D>
HWY_INLINE Vec<D> within_bend(D d, Vec<D> x) {
  const auto limit = hn::Set(d, 80.0f);
  return hn::IfThenElse(hn::Gt(hn::Abs(x), limit), hn::CopySign(limit, x), x);
}

// (x·σ(z))' = σ + x·σ(1−σ)·z'
template <class F>
void backward(const void* in, DType in_type, const void* gradient, DType gradient_type, void* out, int64_t n) {
  with_type(in, in_type, [&](auto* x) HWY_ATTR {
    with_type(gradient, gradient_type, [&](auto* g) HWY_ATTR {
      with_type(out, in_type, [&](auto* dx) HWY_ATTR {
        for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
          const auto v = within_bend(d, load(d, x + i));
          const auto s = sigmoid(d, F::argument(d, v));
          const auto bend = hn::Mul(hn::Mul(v, hn::Mul(s, hn::Sub(hn::Set(d, 1.0f), s))), F::slope(d, v));
          store(hn::Mul(load(d, g + i), hn::Add(s, bend)), d, dx + i);
        });
      });
    });
  });
}

void silu_forward(const void* in, DType in_type, void* out, DType out_type, int64_t n) {
  forward<Silu>(in, in_type, out, out_type, n);
}
void gelu_forward(const void* in, DType in_type, void* out, DType out_type, int64_t n) {
  forward<GeluTanh>(in, in_type, out, out_type, n);
}
void silu_backward(const void* in, DType in_type, const void* g, DType g_type, void* out, int64_t n) {
  backward<Silu>(in, in_type, g, g_type, out, n);
}
void gelu_backward(const void* in, DType in_type, const void* g, DType g_type, void* out, int64_t n) {
  backward<GeluTanh>(in, in_type, g, g_type, out, n);
}

void gated_forward(const void* gate, const void* in, void* out, DType dtype, int64_t n) {
  with_type(gate, dtype, [&](auto* a) HWY_ATTR {
    const auto* x = static_cast<decltype(a)>(in);
    auto* y = static_cast<std::remove_const_t<std::remove_pointer_t<decltype(a)>>*>(out);
    for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
      store(hn::Mul(activate<GeluTanh>(d, load(d, a + i)), load(d, x + i)), d, y + i);
    });
  });
}

void multiply(const void* left, const void* right, DType right_type, void* out, DType dtype, int64_t n) {
  with_type(left, dtype, [&](auto* a) HWY_ATTR {
    with_type(right, right_type, [&](auto* b) HWY_ATTR {
      auto* y = static_cast<std::remove_const_t<std::remove_pointer_t<decltype(a)>>*>(out);
      for_lanes(n,
                [&](auto d, int64_t i) HWY_ATTR { store(hn::Mul(load(d, a + i), load(d, b + i)), d, y + i); });
    });
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops {

HWY_EXPORT(silu_forward);
HWY_EXPORT(gelu_forward);
HWY_EXPORT(silu_backward);
HWY_EXPORT(gelu_backward);
HWY_EXPORT(gated_forward);
HWY_EXPORT(multiply);

namespace {

constexpr int64_t grain = 1 << 13;

// A kind of activation on the CPU, and on the GPU.
struct Unary {
  std::string_view name;
  void (*forward)(const void* in, DType in_type, void* out, DType out_type, int64_t n);
  void (*backward)(const void* in, DType in_type, const void* g, DType g_type, void* out, int64_t n);
  GpuActivation kind;
};

Tensor activated(const Unary& f, const Tensor& x, DType out_dtype) {
  Tensor y = Tensor::empty(x.shape(), out_dtype, x.device());
  if (x.on_gpu()) {
    gpu_kernels().activation.forward(f.kind, x.view(), y.view(), x.numel());
    return y;
  }
  parallel_for(x.numel(), grain, [&](int64_t begin, int64_t end) {
    f.forward(element(x, begin), x.dtype(), element(y, begin), out_dtype, end - begin);
  });
  return y;
}

// g·f'(x), in x's type.
Tensor through(const Unary& f, const Tensor& x, const Tensor& g) {
  Tensor dx = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.on_gpu()) {
    gpu_kernels().activation.backward(f.kind, x.view(), g.view(), dx.view(), x.numel());
    return dx;
  }
  parallel_for(x.numel(), grain, [&](int64_t begin, int64_t end) {
    f.backward(element(x, begin), x.dtype(), element(g, begin), g.dtype(), element(dx, begin), end - begin);
  });
  return dx;
}

Tensor unary(const Unary& f, const Tensor& x, DType out_dtype) {
  check_type(f.name, x);
  check_type(f.name, out_dtype, x.device());
  Tensor y = activated(f, x, out_dtype);
  if (wants_grad(x))
    record_backward(y, [f, x = x.detach(), slot = x.grad_slot()](const Tensor& g) {
      accumulate_grad(slot, through(f, x, g));
    });
  return y;
}

Unary of_silu() {
  return {"silu", HWY_DYNAMIC_DISPATCH(silu_forward), HWY_DYNAMIC_DISPATCH(silu_backward), GpuActivation::silu};
}
Unary of_gelu() {
  return {"gelu_tanh", HWY_DYNAMIC_DISPATCH(gelu_forward), HWY_DYNAMIC_DISPATCH(gelu_backward),
          GpuActivation::gelu_tanh};
}

}  // namespace

Tensor silu(const Tensor& x, DType out_dtype) { return unary(of_silu(), x, out_dtype); }

Tensor gelu_tanh(const Tensor& x) { return unary(of_gelu(), x, x.dtype()); }

namespace {

// a·b in a's type; b of either type.
Tensor product(const Tensor& a, const Tensor& b) {
  Tensor y = Tensor::empty(a.shape(), a.dtype(), a.device());
  if (a.on_gpu()) {
    gpu_kernels().activation.multiply(a.view(), b.view(), y.view(), y.numel());
    return y;
  }
  parallel_for(a.numel(), grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(multiply)
    (element(a, begin), element(b, begin), b.dtype(), element(y, begin), a.dtype(), end - begin);
  });
  return y;
}

Tensor gated(const Tensor& gate, const Tensor& x) {
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.on_gpu()) {
    gpu_kernels().activation.gated_gelu(gate.view(), x.view(), y.view(), y.numel());
    return y;
  }
  parallel_for(x.numel(), grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gated_forward)
    (element(gate, begin), element(x, begin), element(y, begin), x.dtype(), end - begin);
  });
  return y;
}

}  // namespace

Tensor gated_gelu(const Tensor& gate, const Tensor& x) {
  check_type("gated_gelu", gate);
  check_type("gated_gelu", x);
  check(gate.shape() == x.shape() && gate.dtype() == x.dtype(),
        "gated_gelu: a gate of shape {} does not go with x of shape {}", to_string(gate.shape()),
        to_string(x.shape()));
  Tensor y = gated(gate, x);
  if (wants_grad(gate, x))
    record_backward(y, [gate = gate.detach(), x = x.detach(), gate_slot = gate.grad_slot(),
                        x_slot = x.grad_slot()](const Tensor& g) {
      accumulate_grad(gate_slot, through(of_gelu(), gate, product(x, g)));
      accumulate_grad(x_slot, product(gelu_tanh(gate), g));
    });
  return y;
}

}  // namespace linnet::ops
#endif
