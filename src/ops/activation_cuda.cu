#include "cuda/elementwise.h"
#include "cuda/kernels.h"

namespace linnet::cuda {
namespace {

using ops::GpuActivation;

// Both are x·σ(z), as in ops/activation-inl.h and activation.cpp.
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
__device__ float within_bend(float x) { return fabsf(x) > 80.0f ? copysignf(80.0f, x) : x; }

template <GpuActivation Kind>
__device__ float activate(float x) {
  return x * sigmoid(argument<Kind>(x));
}

template <GpuActivation Kind>
struct Activate {
  __device__ float operator()(float x) const { return activate<Kind>(x); }
};

template <GpuActivation Kind>
struct Bend {
  __device__ float operator()(float given, float g) const {
    const float x = within_bend(given), s = sigmoid(argument<Kind>(x));
    return g * fmaf(x * s * (1.0f - s), slope<Kind>(x), s);
  }
};

struct Gate {
  __device__ float operator()(float gate, float x) const {
    return activate<GpuActivation::gelu_tanh>(gate) * x;
  }
};

struct Multiply {
  __device__ float operator()(float a, float b) const { return a * b; }
};

void forward(GpuActivation kind, View x, View y, int64_t n) {
  with_float(x.dtype, [&](auto* in) {
    with_float(y.dtype, [&](auto* out) {
      using In = Pointee<decltype(in)>;
      using Out = Pointee<decltype(out)>;
      if (kind == GpuActivation::silu)
        map(Activate<GpuActivation::silu>{}, n, y.as<Out>(), x.as<In>());
      else
        map(Activate<GpuActivation::gelu_tanh>{}, n, y.as<Out>(), x.as<In>());
    });
  });
}

void backward(GpuActivation kind, View x, View g, View dx, int64_t n) {
  with_float(x.dtype, [&](auto* in) {
    with_float(g.dtype, [&](auto* gradient) {
      using X = Pointee<decltype(in)>;
      using G = Pointee<decltype(gradient)>;
      if (kind == GpuActivation::silu)
        map(Bend<GpuActivation::silu>{}, n, dx.as<X>(), x.as<X>(), g.as<G>());
      else
        map(Bend<GpuActivation::gelu_tanh>{}, n, dx.as<X>(), x.as<X>(), g.as<G>());
    });
  });
}

void gated_gelu(View gate, View x, View y, int64_t n) {
  with_float(gate.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    map(Gate{}, n, y.as<T>(), gate.as<T>(), x.as<T>());
  });
}

void multiply(View a, View b, View y, int64_t n) {
  with_float(a.dtype, [&](auto* left) {
    with_float(b.dtype, [&](auto* right) {
      using A = Pointee<decltype(left)>;
      using B = Pointee<decltype(right)>;
      map(Multiply{}, n, y.as<A>(), a.as<A>(), b.as<B>());
    });
  });
}

}  // namespace

void fill(ops::ActivationKernels& table) { table = {forward, backward, gated_gelu, multiply}; }

}  // namespace linnet::cuda
