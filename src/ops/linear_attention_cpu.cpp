// Work is cut into parts of 1,024 tokens of one head. Each part's Σ k̂ᵀv is gathered apart and the parts are then
// added in order, so that the result depends neither on the number of threads nor on their timing.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/linear_attention_cpu.h"
#include "ops/tile-inl.h"

#ifndef LINNET_LINEAR_ATTENTION_PART
#define LINNET_LINEAR_ATTENTION_PART
namespace linnet::ops::cpu {

constexpr int64_t block_tokens = 64;  // a block's q, k, v stay in the second-level cache

// Some tokens of one head: where they lie and what they share. Strides in elements.
struct Part {
  const void *q, *k, *v, *g;   // g: the output's gradient
  void *out, *dq, *dk, *dv;
  const float* state;          // (head_size + 1, padded)
  const float* state_grad;     // likewise
  const float* transposed;     // (head_size, padded): Σ k̂ᵀv transposed, or its gradient
  float* sums;                 // (head_size + 1, padded): this part's share
  float* scratch;              // 4 blocks of (block_tokens, padded)
  DType dtype, g_dtype;
  int64_t tokens, head_size, padded, q_stride, kv_stride;
};

}  // namespace linnet::ops::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

using cpu::block_tokens;
using cpu::Part;

constexpr float epsilon = 1e-6f;

template <class T>
HWY_INLINE T* offset(T* p, DType dtype, int64_t elements) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return static_cast<Byte*>(p) + elements * static_cast<int64_t>(size_of(dtype));
}

// Loads a block and applies relu + epsilon; the padding stays 0. NaN stays NaN, which a maximum with 0 would hide.
HWY_INLINE void load_feature_map(const void* in, DType dtype, int64_t stride, int64_t rows, int64_t n,
                                 int64_t padded, float* out) {
  load_tile(in, dtype, stride, rows, n, padded, out);
  for (int64_t r = 0; r < rows; ++r)
    for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
      float* p = out + r * padded + i;
      const auto x = load(d, p);
      store(hn::Add(hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x), hn::Set(d, epsilon)), d, p);
    });
}

// The feature map's derivative: where it was flat (value still epsilon), the gradient is 0.
HWY_INLINE void mask_flat(const float* mapped, int64_t count, float* gradient) {
  for_lanes(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto rising = hn::Gt(load(d, mapped + i), hn::Set(d, epsilon));
    store(hn::IfThenElseZero(rising, load(d, gradient + i)), d, gradient + i);
  });
}

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  return sum_lanes(n, [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(load(d, a + i), load(d, b + i)); });
}

HWY_INLINE void add_scaled(const float* x, float factor, int64_t n, float* sum) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    store(hn::MulAdd(load(d, x + i), hn::Set(d, factor), load(d, sum + i)), d, sum + i);
  });
}

HWY_INLINE void scale_row(float factor, int64_t n, float* x) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR { store(hn::Mul(load(d, x + i), hn::Set(d, factor)), d, x + i); });
}

// sums = Σ k̂ᵀv and, as last row, Σ k̂.
void gather_keys(const Part& part) {
  const int64_t n = part.head_size, padded = part.padded;
  float *k = part.scratch, *v = k + block_tokens * padded, *total = part.sums + n * padded;
  for (int64_t i = 0; i < padded; ++i) total[i] = 0.0f;
  for (int64_t t = 0; t < part.tokens; t += block_tokens) {
    const int64_t rows = HWY_MIN(block_tokens, part.tokens - t);
    load_feature_map(offset(part.k, part.dtype, t * part.kv_stride), part.dtype, part.kv_stride, rows, n, padded, k);
    load_tile(offset(part.v, part.dtype, t * part.kv_stride), part.dtype, part.kv_stride, rows, n, padded, v);
    tile_product(k, 1, padded, v, padded, n, padded, rows, part.sums, padded, t > 0);
    for (int64_t r = 0; r < rows; ++r) add_scaled(k + r * padded, 1.0f, padded, total);
  }
}

// out = q̂·Σk̂ᵀv / (q̂·Σk̂)
void answer_queries(const Part& part) {
  const int64_t n = part.head_size, padded = part.padded;
  float *q = part.scratch, *o = q + block_tokens * padded;
  const float* total = part.state + n * padded;
  for (int64_t t = 0; t < part.tokens; t += block_tokens) {
    const int64_t rows = HWY_MIN(block_tokens, part.tokens - t);
    load_feature_map(offset(part.q, part.dtype, t * part.q_stride), part.dtype, part.q_stride, rows, n, padded, q);
    tile_product(q, padded, 1, part.state, padded, rows, padded, n, o, padded, false);
    for (int64_t r = 0; r < rows; ++r)
      scale_row(1.0f / dot(q + r * padded, total, padded), padded, o + r * padded);
    store_tile(o, padded, rows, n, offset(part.out, part.dtype, t * part.q_stride), part.dtype, part.q_stride);
  }
}

// With z = q̂·Σk̂ and ĝ = g/z:  dq̂ = ĝ·(Σk̂ᵀv)ᵀ + dz·Σk̂, dz = −q̂·(ĝ·(Σk̂ᵀv)ᵀ)/z.
// Gathers in sums the state's gradient: q̂ᵀĝ and, as last row, Σ dz·q̂.
void backward_queries(const Part& part) {
  const int64_t n = part.head_size, padded = part.padded;
  float *q = part.scratch, *g = q + block_tokens * padded, *dq = g + block_tokens * padded;
  const float* total = part.state + n * padded;
  float* dtotal = part.sums + n * padded;
  for (int64_t i = 0; i < padded; ++i) dtotal[i] = 0.0f;
  for (int64_t t = 0; t < part.tokens; t += block_tokens) {
    const int64_t rows = HWY_MIN(block_tokens, part.tokens - t);
    load_feature_map(offset(part.q, part.dtype, t * part.q_stride), part.dtype, part.q_stride, rows, n, padded, q);
    load_tile(offset(part.g, part.g_dtype, t * part.q_stride), part.g_dtype, part.q_stride, rows, n, padded, g);
    for (int64_t r = 0; r < rows; ++r)
      scale_row(1.0f / dot(q + r * padded, total, padded), padded, g + r * padded);
    tile_product(g, padded, 1, part.transposed, padded, rows, padded, n, dq, padded, false);
    tile_product(q, 1, padded, g, padded, n, padded, rows, part.sums, padded, t > 0);
    for (int64_t r = 0; r < rows; ++r) {
      const float* q_row = q + r * padded;
      const float dz = -dot(q_row, dq + r * padded, padded) / dot(q_row, total, padded);
      add_scaled(total, dz, padded, dq + r * padded);
      add_scaled(q_row, dz, padded, dtotal);
    }
    mask_flat(q, rows * padded, dq);
    store_tile(dq, padded, rows, n, offset(part.dq, part.dtype, t * part.q_stride), part.dtype, part.q_stride);
  }
}

// dk̂ = v·(dΣk̂ᵀv)ᵀ + dΣk̂;  dv = k̂·dΣk̂ᵀv
void backward_keys(const Part& part) {
  const int64_t n = part.head_size, padded = part.padded;
  float *k = part.scratch, *v = k + block_tokens * padded, *dk = v + block_tokens * padded,
        *dv = dk + block_tokens * padded;
  const float* dtotal = part.state_grad + n * padded;
  for (int64_t t = 0; t < part.tokens; t += block_tokens) {
    const int64_t rows = HWY_MIN(block_tokens, part.tokens - t);
    load_feature_map(offset(part.k, part.dtype, t * part.kv_stride), part.dtype, part.kv_stride, rows, n, padded, k);
    load_tile(offset(part.v, part.dtype, t * part.kv_stride), part.dtype, part.kv_stride, rows, n, padded, v);
    tile_product(v, padded, 1, part.transposed, padded, rows, padded, n, dk, padded, false);
    tile_product(k, padded, 1, part.state_grad, padded, rows, padded, n, dv, padded, false);
    for (int64_t r = 0; r < rows; ++r) add_scaled(dtotal, 1.0f, padded, dk + r * padded);
    mask_flat(k, rows * padded, dk);
    store_tile(dk, padded, rows, n, offset(part.dk, part.dtype, t * part.kv_stride), part.dtype, part.kv_stride);
    store_tile(dv, padded, rows, n, offset(part.dv, part.dtype, t * part.kv_stride), part.dtype, part.kv_stride);
  }
}

void transpose_state(const float* state, int64_t head_size, int64_t padded, float* out) {
  transpose_tile(state, padded, head_size, head_size, out, padded);
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops::cpu {

HWY_EXPORT(gather_keys);
HWY_EXPORT(answer_queries);
HWY_EXPORT(backward_queries);
HWY_EXPORT(backward_keys);
HWY_EXPORT(transpose_state);

namespace {

constexpr int64_t part_tokens = 1024;

// How tokens are cut into parts, and where each part's values lie.
struct Layout {
  Layout(const Tensor& q_in, const Tensor& kv_in, int64_t heads_in)
      : q(q_in), kv(kv_in), heads(heads_in), tokens(q.size(1)), width(q.size(2)), head_size(width / heads),
        padded(pad_tile(head_size)), parts(std::max<int64_t>(1, (tokens + part_tokens - 1) / part_tokens)) {}

  int64_t states() const { return q.size(0) * heads; }
  int64_t tasks() const { return states() * parts; }
  int64_t state_size() const { return (head_size + 1) * padded; }
  int64_t first_token(int64_t task) const { return task % parts * part_tokens; }
  int64_t q_at(int64_t task) const {
    const int64_t state = task / parts;
    return (state / heads * tokens + first_token(task)) * width + state % heads * head_size;
  }
  int64_t kv_at(int64_t task) const {
    const int64_t state = task / parts;
    return (state / heads * tokens + first_token(task)) * 2 * width + state % heads * head_size;
  }
  Part part(int64_t task, float* scratch) const {
    Part result{};
    result.q = element(q, q_at(task));
    result.k = element(kv, kv_at(task));
    result.v = element(kv, kv_at(task) + width);
    result.scratch = scratch;
    result.dtype = q.dtype();
    result.tokens = std::min(part_tokens, tokens - first_token(task));
    result.head_size = head_size;
    result.padded = padded;
    result.q_stride = width;
    result.kv_stride = 2 * width;
    return result;
  }

  const Tensor &q, &kv;
  int64_t heads, tokens, width, head_size, padded, parts;
};

template <class Body>
void for_parts(const Layout& layout, Body body) {
  parallel_for(layout.tasks(), 1, [&](int64_t begin, int64_t end) {
    Tensor scratch = Tensor::empty({4, block_tokens, layout.padded});
    for (int64_t task = begin; task < end; ++task) body(task, layout.part(task, scratch.mutable_data<float>()));
  });
}

// Adds the parts' shares of each state, in order.
void add_parts(const Layout& layout, const Tensor& shares, Tensor& states) {
  const int64_t size = layout.state_size();
  const float* from = shares.data<float>();
  float* to = states.mutable_data<float>();
  parallel_for(layout.states(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      std::copy_n(from + s * layout.parts * size, size, to + s * size);
      for (int64_t p = 1; p < layout.parts; ++p)
        for (int64_t i = 0; i < size; ++i) to[s * size + i] += from[(s * layout.parts + p) * size + i];
    }
  });
}

// The parts' shares; with one part a state, the states themselves.
Tensor shares_of(const Layout& layout, const Tensor& states) {
  if (layout.parts == 1) return states.reshape({layout.tasks(), layout.state_size()});
  return Tensor::empty({layout.tasks(), layout.state_size()});
}

Tensor transposed_states(const Layout& layout, const Tensor& states) {
  Tensor result = Tensor::empty({layout.states(), layout.head_size, layout.padded});
  const float* from = states.data<float>();
  float* to = result.mutable_data<float>();
  parallel_for(layout.states(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s)
      HWY_DYNAMIC_DISPATCH(transpose_state)
    (from + s * layout.state_size(), layout.head_size, layout.padded, to + s * layout.head_size * layout.padded);
  });
  return result;
}

}  // namespace

void linear_attention_forward(const Tensor& q, const Tensor& kv, int64_t heads, Tensor& out, Tensor& state) {
  const Layout layout(q, kv, heads);
  Tensor shares = shares_of(layout, state);
  float* share = shares.mutable_data<float>();
  for_parts(layout, [&](int64_t task, Part part) {
    part.sums = share + task * layout.state_size();
    HWY_DYNAMIC_DISPATCH(gather_keys)(part);
  });
  if (layout.parts > 1) add_parts(layout, shares, state);
  const float* states = state.data<float>();
  for_parts(layout, [&](int64_t task, Part part) {
    part.state = states + task / layout.parts * layout.state_size();
    part.out = element(out, layout.q_at(task));
    HWY_DYNAMIC_DISPATCH(answer_queries)(part);
  });
}

void linear_attention_backward(const Tensor& g, const Tensor& q, const Tensor& kv, const Tensor& state,
                               int64_t heads, Tensor& dq, Tensor& dkv) {
  const Layout layout(q, kv, heads);
  Tensor dstate = Tensor::empty(state.shape());
  Tensor shares = shares_of(layout, dstate);
  float* share = shares.mutable_data<float>();
  const int64_t matrix = layout.head_size * layout.padded;
  const Tensor transposed = transposed_states(layout, state);
  for_parts(layout, [&](int64_t task, Part part) {
    const int64_t s = task / layout.parts;
    part.state = state.data<float>() + s * layout.state_size();
    part.transposed = transposed.data<float>() + s * matrix;
    part.g = element(g, layout.q_at(task));
    part.g_dtype = g.dtype();
    part.dq = element(dq, layout.q_at(task));
    part.sums = share + task * layout.state_size();
    HWY_DYNAMIC_DISPATCH(backward_queries)(part);
  });
  if (layout.parts > 1) add_parts(layout, shares, dstate);
  const Tensor dtransposed = transposed_states(layout, dstate);
  for_parts(layout, [&](int64_t task, Part part) {
    const int64_t s = task / layout.parts;
    part.state_grad = dstate.data<float>() + s * layout.state_size();
    part.transposed = dtransposed.data<float>() + s * matrix;
    part.dk = element(dkv, layout.kv_at(task));
    part.dv = element(dkv, layout.kv_at(task) + layout.width);
    HWY_DYNAMIC_DISPATCH(backward_keys)(part);
  });
}

}  // namespace linnet::ops::cpu
#endif
