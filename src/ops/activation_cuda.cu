#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

using ops::GpuActivation;

// Both are x·σ(z), as in ops/activation-inl.h.
template <GpuActivation Kind>
__device__ float argument(float x) {
  constexpr float c = 1.5957691216057308f, cubic = 0.044715f;
  return Kind == GpuActivation::silu ? x : x * fmaf(x * x, c * cubic, c);
}
template <GpuActivation Kind>
__device__ float slope(float x) {
  constexpr float c = 1.5957691216057308f, cubic = 0.044715f;
  return Kind == GpuActivation::silu ? 1.0f : fmaf(x * x, 3.0f * c * cubic, c);
}
__device__ float sigmoid(float z) { return 1.0f / (1.0f + __expf(-z)); }

template <GpuActivation Kind>
__device__ float activate(float x) {
  return x * sigmoid(argument<Kind>(x));
}

template <GpuActivation Kind, class In, class Out>
__global__ void activate_all(const In* x, Out* y, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) assign(y[i], activate<Kind>(to_float(x[i])));
}

template <GpuActivation Kind, class X, class G>
__global__ void activate_backward(const X* x, const G* g, X* dx, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const float v = to_float(x[i]), s = sigmoid(argument<Kind>(v));
    assign(dx[i], to_float(g[i]) * fmaf(v * s * (1.0f - s), slope<Kind>(v), s));
  }
}

template <class T>
__global__ void gated(const T* gate, const T* x, T* y, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count())
    assign(y[i], activate<GpuActivation::gelu_tanh>(to_float(gate[i])) * to_float(x[i]));
}

template <class A, class B>
__global__ void multiply_all(const A* a, const B* b, A* y, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) assign(y[i], to_float(a[i]) * to_float(b[i]));
}

void forward(GpuActivation kind, View x, View y, int64_t n) {
  with_float(x.dtype, [&](auto* in) {
    with_float(y.dtype, [&](auto* out) {
      using In = Pointee<decltype(in)>;
      using Out = Pointee<decltype(out)>;
      launch_over(n,
                  kind == GpuActivation::silu ? activate_all<GpuActivation::silu, In, Out>
                                              : activate_all<GpuActivation::gelu_tanh, In, Out>,
                  x.as<In>(), y.as<Out>(), n);
    });
  });
}

void backward(GpuActivation kind, View x, View g, View dx, int64_t n) {
  with_float(x.dtype, [&](auto* in) {
    with_float(g.dtype, [&](auto* gradient) {
      using X = Pointee<decltype(in)>;
      using G = Pointee<decltype(gradient)>;
      launch_over(n,
                  kind == GpuActivation::silu ? activate_backward<GpuActivation::silu, X, G>
                                              : activate_backward<GpuActivation::gelu_tanh, X, G>,
                  x.as<X>(), g.as<G>(), dx.as<X>(), n);
    });
  });
}

void gated_gelu(View gate, View x, View y, int64_t n) {
  with_float(gate.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch_over(n, gated<T>, gate.as<T>(), x.as<T>(), y.as<T>(), n);
  });
}

void multiply(View a, View b, View y, int64_t n) {
  with_float(a.dtype, [&](auto* left) {
    with_float(b.dtype, [&](auto* right) {
      using A = Pointee<decltype(left)>;
      using B = Pointee<decltype(right)>;
      launch_over(n, multiply_all<A, B>, a.as<A>(), b.as<B>(), y.as<A>(), n);
    });
  });
}

}  // namespace

void fill(ops::ActivationKernels& table) { table = {forward, backward, gated_gelu, multiply}; }

}  // namespace linnet::cuda
