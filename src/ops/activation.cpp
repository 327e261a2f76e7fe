#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/activation.cpp"
#include <hwy/foreach_target.h>

#include <type_traits>

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/activation-inl.h"
#include "ops/activation.h"
#include "ops/element.h"

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

// (x·σ(z))' = σ + x·σ(1−σ)·z'
template <class F>
void backward(const void* in, DType in_type, const void* gradient, DType gradient_type, void* out, int64_t n) {
  with_type(in, in_type, [&](auto* x) HWY_ATTR {
    with_type(gradient, gradient_type, [&](auto* g) HWY_ATTR {
      with_type(out, in_type, [&](auto* dx) HWY_ATTR {
        for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
          const auto v = load(d, x + i);
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

template <class Forward, class Backward>
Tensor unary(std::string_view name, const Tensor& x, DType out_dtype, Forward forward, Backward backward) {
  check_type(name, x);
  check_type(name, out_dtype);
  Tensor y = Tensor::empty(x.shape(), out_dtype);
  parallel_for(x.numel(), grain, [&](int64_t begin, int64_t end) {
    forward(element(x, begin), x.dtype(), element(y, begin), out_dtype, end - begin);
  });
  if (wants_grad(x))
    record_backward(y, [x = x.detach(), slot = x.grad_slot(), backward](const Tensor& g) {
      Tensor dx = Tensor::empty(x.shape(), x.dtype());
      parallel_for(x.numel(), grain, [&](int64_t begin, int64_t end) {
        backward(element(x, begin), x.dtype(), element(g, begin), g.dtype(), element(dx, begin), end - begin);
      });
      accumulate_grad(slot, dx);
    });
  return y;
}

}  // namespace

Tensor silu(const Tensor& x, DType out_dtype) {
  return unary("silu", x, out_dtype, HWY_DYNAMIC_DISPATCH(silu_forward), HWY_DYNAMIC_DISPATCH(silu_backward));
}

Tensor gelu_tanh(const Tensor& x) {
  return unary("gelu_tanh", x, x.dtype(), HWY_DYNAMIC_DISPATCH(gelu_forward),
               HWY_DYNAMIC_DISPATCH(gelu_backward));
}

namespace {

// a·b in a's type; b of either type.
Tensor product(const Tensor& a, const Tensor& b) {
  Tensor y = Tensor::empty(a.shape(), a.dtype());
  parallel_for(a.numel(), grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(multiply)
    (element(a, begin), element(b, begin), b.dtype(), element(y, begin), a.dtype(), end - begin);
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
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  parallel_for(x.numel(), grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gated_forward)
    (element(gate, begin), element(x, begin), element(y, begin), x.dtype(), end - begin);
  });
  if (wants_grad(gate, x))
    record_backward(y, [gate = gate.detach(), x = x.detach(), gate_slot = gate.grad_slot(),
                        x_slot = x.grad_slot()](const Tensor& g) {
      const Tensor through = product(x, g);
      Tensor dgate = Tensor::empty(gate.shape(), gate.dtype());
      parallel_for(x.numel(), grain, [&](int64_t begin, int64_t end) {
        HWY_DYNAMIC_DISPATCH(gelu_backward)
        (element(gate, begin), gate.dtype(), element(through, begin), through.dtype(), element(dgate, begin),
         end - begin);
      });
      accumulate_grad(gate_slot, dgate);
      accumulate_grad(x_slot, product(gelu_tanh(gate), g));
    });
  return y;
}

}  // namespace linnet::ops
#endif
