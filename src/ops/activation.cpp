#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/activation.cpp"
#include <hwy/foreach_target.h>

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

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops {

HWY_EXPORT(silu_forward);
HWY_EXPORT(gelu_forward);
HWY_EXPORT(silu_backward);
HWY_EXPORT(gelu_backward);

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

}  // namespace linnet::ops
#endif
