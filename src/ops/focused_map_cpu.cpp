// A part is some tokens of all samples, about 256 rows: it alone writes its positions' gradients, and the
// scale's gradients of the parts are added in order, so that results depend neither on the number of threads
// nor on timing.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/focused_map_cpu.cpp"
#include <hwy/foreach_target.h>

#include <cmath>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/focused_map_cpu.h"
#include "ops/simd-inl.h"

#ifndef LINNET_FOCUSED_MAP_ROWS
#define LINNET_FOCUSED_MAP_ROWS
namespace linnet::ops::cpu {

constexpr int64_t scratch_rows = 2;

// Consecutive tokens of one sample, and what all samples share.
struct FocusedRows {
  const void *x, *g;  // (rows, row_size); g: the output's gradient
  void *out, *dx;
  const float* inverse;    // (width): 1/softplus(scale)
  const float* positions;  // (rows, width), or null
  float* dpositions;       // likewise; the rows' gradients are added to it
  float* growth;           // (width): Σ dy·y is added to it
  float* scratch;          // (scratch_rows, width)
  DType dtype, g_dtype;
  FocusedActivation activation;
  int64_t rows, width, row_size;
};

}  // namespace linnet::ops::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

using cpu::FocusedRows;

constexpr float epsilon = 1e-6f;

// relu(u) and its slope; NaN stays NaN.
struct Relu {
  template <class D>
  static HWY_INLINE Vec<D> apply(D d, Vec<D> u, Vec<D>& slope) {
    const auto flat = hn::Le(u, hn::Zero(d));
    slope = hn::IfThenZeroElse(flat, hn::Set(d, 1.0f));
    return hn::IfThenZeroElse(flat, u);
  }
};

// u·Φ(u) and its slope Φ + u·φ. Of |u|, 1 − Φ = poly(t)·e^(−u²/2) with t = 1/(1 + p|u|/√2), to 8e-8 (Abramowitz
// and Stegun 7.1.26); φ needs the same e^(−u²/2).
struct Gelu {
  template <class D>
  static HWY_INLINE Vec<D> apply(D d, Vec<D> u, Vec<D>& slope) {
    const auto one = hn::Set(d, 1.0f);
    const auto t = hn::Div(one, hn::MulAdd(hn::Abs(u), hn::Set(d, 0.3275911f * 0.70710678f), one));
    auto poly = hn::MulAdd(t, hn::Set(d, 0.5f * 1.061405429f), hn::Set(d, 0.5f * -1.453152027f));
    poly = hn::MulAdd(poly, t, hn::Set(d, 0.5f * 1.421413741f));
    poly = hn::MulAdd(poly, t, hn::Set(d, 0.5f * -0.284496736f));
    poly = hn::MulAdd(poly, t, hn::Set(d, 0.5f * 0.254829592f));
    const auto exponent = hn::Max(hn::Mul(hn::Mul(u, u), hn::Set(d, -0.5f)), hn::Set(d, -80.0f));
    const auto bell = exp_in_range(d, exponent);
    const auto tail = hn::Mul(hn::Mul(poly, t), bell);
    const auto below = hn::IfThenElse(hn::Lt(u, hn::Zero(d)), tail, hn::Sub(one, tail));  // Φ(u)
    slope = hn::MulAdd(hn::Mul(u, hn::Set(d, 0.39894228f)), bell, below);
    return hn::Mul(u, below);
  }
};

// Memory of the same element type.
template <class T>
HWY_INLINE T* like(const T*, void* p) {
  return static_cast<T*>(p);
}

HWY_INLINE void hand_on(const void* from, DType from_type, void* to, DType to_type, int64_t first,
                        int64_t last) {
  with_type(from, from_type, [&](auto* in) HWY_ATTR {
    with_type(to, to_type, [&](auto* out) HWY_ATTR {
      for_lanes(last - first,
                [&](auto d, int64_t i) HWY_ATTR { store(load(d, in + first + i), d, out + first + i); });
    });
  });
}

// A row's y, and its activation's slope where asked for; returns ‖y‖.
template <class Activation, class T>
HWY_INLINE float scaled_row(const FocusedRows& task, const T* x, const float* position, float* y,
                            float* slope) {
  return std::sqrt(sum_lanes(task.width, [&](auto d, int64_t i) HWY_ATTR {
    const auto u = position ? hn::Add(load(d, x + i), load(d, position + i)) : load(d, x + i);
    auto rise = u;
    const auto a = hn::Add(Activation::apply(d, u, rise), hn::Set(d, epsilon));
    const auto v = hn::Mul(a, load(d, task.inverse + i));
    store(v, d, y + i);
    if (slope) store(rise, d, slope + i);
    return hn::Mul(v, v);
  }));
}

// y made t = y/‖y‖, so that no power of it leaves f32's range; returns ‖t³‖.
HWY_INLINE float direct_row(float length, int64_t width, float* y) {
  const float inverse = 1.0f / length;
  return std::sqrt(sum_lanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto t = hn::Mul(load(d, y + i), hn::Set(d, inverse));
    store(t, d, y + i);
    const auto cube = hn::Mul(hn::Mul(t, t), t);
    return hn::Mul(cube, cube);
  }));
}

template <class Activation, class T>
HWY_INLINE void forward_as(const FocusedRows& task, const T* x, T* out) {
  float* t = task.scratch;
  const float* position = task.positions;
  for (int64_t r = 0; r < task.rows; ++r, x += task.row_size, out += task.row_size) {
    const float length = scaled_row<Activation>(task, x, position, t, nullptr);
    const float factor = length / direct_row(length, task.width, t);
    for_lanes(task.width, [&](auto d, int64_t i) HWY_ATTR {
      const auto v = load(d, t + i);
      store(hn::Mul(hn::Mul(hn::Mul(v, v), v), hn::Set(d, factor)), d, out + i);
    });
    hand_on(x, task.dtype, out, task.dtype, task.width, task.row_size);
    if (position) position += task.width;
  }
}

// With t = y/‖y‖, c = ‖t³‖ and A = Σ g·t³:  dy = (3t²g + A(t − 3t⁵/c²))/c;  du = dy·act'(u)/softplus(scale).
template <class Activation, class T, class G>
HWY_INLINE void backward_as(const FocusedRows& task, const T* x, const G* g, T* dx) {
  float *t = task.scratch, *slope = t + task.width, *dposition = task.dpositions;
  const float* position = task.positions;
  for (int64_t r = 0; r < task.rows; ++r, x += task.row_size, g += task.row_size, dx += task.row_size) {
    const float length = scaled_row<Activation>(task, x, position, t, slope);
    const float cubes = direct_row(length, task.width, t), inverse_cubes = 1.0f / cubes;
    const float along = sum_lanes(task.width, [&](auto d, int64_t i) HWY_ATTR {
      const auto v = load(d, t + i);
      return hn::Mul(load(d, g + i), hn::Mul(hn::Mul(v, v), v));
    });
    const float bend = 3.0f * inverse_cubes * inverse_cubes;
    for_lanes(task.width, [&](auto d, int64_t i) HWY_ATTR {
      const auto v = load(d, t + i), square = hn::Mul(v, v);
      const auto turned =
          hn::Mul(v, hn::NegMulAdd(hn::Mul(square, square), hn::Set(d, bend), hn::Set(d, 1.0f)));
      const auto straight = hn::Mul(hn::Mul(square, hn::Set(d, 3.0f)), load(d, g + i));
      const auto dy = hn::Mul(hn::MulAdd(turned, hn::Set(d, along), straight), hn::Set(d, inverse_cubes));
      float* growth = task.growth + i;
      store(hn::MulAdd(dy, hn::Mul(v, hn::Set(d, length)), load(d, growth)), d, growth);
      const auto du = hn::Mul(hn::Mul(dy, load(d, task.inverse + i)), load(d, slope + i));
      store(du, d, dx + i);
      if (dposition) store(hn::Add(load(d, dposition + i), du), d, dposition + i);
    });
    hand_on(g, task.g_dtype, dx, task.dtype, task.width, task.row_size);
    if (position) position += task.width;
    if (dposition) dposition += task.width;
  }
}

template <class Activation>
void forward_rows_as(const FocusedRows& task) {
  with_type(task.x, task.dtype, [&](auto* x) HWY_ATTR { forward_as<Activation>(task, x, like(x, task.out)); });
}

template <class Activation>
void backward_rows_as(const FocusedRows& task) {
  with_type(task.x, task.dtype, [&](auto* x) HWY_ATTR {
    with_type(task.g, task.g_dtype,
              [&](auto* g) HWY_ATTR { backward_as<Activation>(task, x, g, like(x, task.dx)); });
  });
}

void forward_rows(const FocusedRows& task) {
  task.activation == FocusedActivation::relu ? forward_rows_as<Relu>(task) : forward_rows_as<Gelu>(task);
}
void backward_rows(const FocusedRows& task) {
  task.activation == FocusedActivation::relu ? backward_rows_as<Relu>(task) : backward_rows_as<Gelu>(task);
}

// 1/softplus(scale), with softplus(x) = max(x, 0) + log(1 + e^−|x|).
void invert_scale(const float* scale, int64_t width, float* inverse) {
  for_lanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto x = load(d, scale + i);
    const auto small = exp_in_range(d, hn::Max(hn::Neg(hn::Abs(x)), hn::Set(d, -80.0f)));
    const auto softplus = hn::Add(hn::Max(x, hn::Zero(d)), hn::Log1p(d, small));
    store(hn::Div(hn::Set(d, 1.0f), softplus), d, inverse + i);
  });
}

// dscale = −σ(scale)/softplus(scale) · Σ dy·y, since y is proportional to 1/softplus(scale). In place on the
// sums.
void scale_gradient(const float* scale, const float* inverse, int64_t width, float* sums) {
  for_lanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto factor = hn::Mul(sigmoid(d, load(d, scale + i)), load(d, inverse + i));
    store(hn::Neg(hn::Mul(factor, load(d, sums + i))), d, sums + i);
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops::cpu {

HWY_EXPORT(forward_rows);
HWY_EXPORT(backward_rows);
HWY_EXPORT(invert_scale);
HWY_EXPORT(scale_gradient);

namespace {

// How tokens are cut into parts.
struct Parts {
  explicit Parts(const Tensor& x)
      : batch(x.size(0)), tokens(x.size(1)),
        part_tokens(std::max<int64_t>(1, 256 / std::max<int64_t>(1, batch))),
        count((tokens + part_tokens - 1) / part_tokens) {}
  int64_t batch, tokens, part_tokens, count;
};

Tensor inverse_of(const Tensor& scale) {
  Tensor inverse = Tensor::empty(scale.shape());
  HWY_DYNAMIC_DISPATCH(invert_scale)(scale.data<float>(), scale.numel(), inverse.mutable_data<float>());
  return inverse;
}

// body(part, rows) for every part and sample; what a pass needs beyond the common fields, body fills in.
template <class Body>
void for_rows(const Parts& parts, const Tensor& x, const Tensor& inverse, const Tensor& positions,
              FocusedActivation activation, Body body) {
  const int64_t width = inverse.numel(), row_size = x.size(2);
  parallel_for(parts.count, 1, [&](int64_t begin, int64_t end) {
    Tensor scratch = Tensor::empty({scratch_rows, width});
    FocusedRows task{};
    task.inverse = inverse.data<float>();
    task.scratch = scratch.mutable_data<float>();
    task.dtype = x.dtype();
    task.activation = activation;
    task.width = width;
    task.row_size = row_size;
    for (int64_t part = begin; part < end; ++part) {
      const int64_t token = part * parts.part_tokens;
      task.rows = std::min(parts.part_tokens, parts.tokens - token);
      task.positions = positions.defined() ? positions.data<float>() + token * width : nullptr;
      for (int64_t sample = 0; sample < parts.batch; ++sample) {
        const int64_t place = (sample * parts.tokens + token) * row_size;
        task.x = element(x, place);
        body(task, part, token, place);
      }
    }
  });
}

}  // namespace

void focused_map_forward(const Tensor& x, const Tensor& scale, const Tensor& positions,
                         FocusedActivation activation, Tensor& out) {
  for_rows(Parts(x), x, inverse_of(scale), positions, activation,
           [&](FocusedRows task, int64_t, int64_t, int64_t place) {
             task.out = element(out, place);
             HWY_DYNAMIC_DISPATCH(forward_rows)(task);
           });
}

void focused_map_backward(const Tensor& g, const Tensor& x, const Tensor& scale, const Tensor& positions,
                          FocusedActivation activation, Tensor& dx, Tensor& dscale, Tensor& dpositions) {
  const Parts parts(x);
  const int64_t width = scale.numel();
  const Tensor inverse = inverse_of(scale);
  Tensor growth = Tensor::zeros({parts.count, width});
  if (dpositions.defined()) std::fill_n(dpositions.mutable_data<float>(), dpositions.numel(), 0.0f);
  for_rows(parts, x, inverse, positions, activation,
           [&](FocusedRows task, int64_t part, int64_t token, int64_t place) {
             task.g = element(g, place);
             task.g_dtype = g.dtype();
             task.dx = element(dx, place);
             task.growth = growth.mutable_data<float>() + part * width;
             task.dpositions =
                 dpositions.defined() ? dpositions.mutable_data<float>() + token * width : nullptr;
             HWY_DYNAMIC_DISPATCH(backward_rows)(task);
           });
  float* sums = dscale.mutable_data<float>();
  std::fill_n(sums, width, 0.0f);
  for (int64_t part = 0; part < parts.count; ++part)
    for (int64_t i = 0; i < width; ++i) sums[i] += growth.data<float>()[part * width + i];
  HWY_DYNAMIC_DISPATCH(scale_gradient)(scale.data<float>(), inverse.data<float>(), width, sums);
}

}  // namespace linnet::ops::cpu
#endif
