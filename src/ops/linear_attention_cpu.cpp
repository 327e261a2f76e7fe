// Work is cut into parts of 1,024 tokens of one head. Each part's Σ k̂ᵀv is gathered apart and the parts are
// then added in order, so that the result depends neither on the number of threads nor on their timing.
//
// Products are of f32s, or, for bf16 tensors where the CPU multiplies pairs of bf16, of pairs with f32 sums:
// then q̂, k̂ and the states are rounded to bf16 as they enter a product.
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
constexpr int64_t scratch_blocks = 6;

// Some tokens of one head: where they lie and what they share. Strides in elements.
struct Part {
  const void *q, *k, *v, *g;  // g: the output's gradient
  void *out, *dq, *dk, *dv;
  const float* total;  // (padded): Σ k̂, or its gradient
  const float* matrix;  // Σ k̂ᵀv, or its gradient, as right operand: (head_size, padded), or half as many pairs
  const float* transposed;  // likewise, transposed
  float* sums;              // (head_size + 1, padded): this part's share
  float* scratch;           // scratch_blocks blocks of (block_tokens, padded)
  DType dtype, g_dtype;
  bool pairs;  // products of pairs of bf16
  FeatureMap map;
  float guard;  // how far the denominator stays from 0
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

template <class D>
HWY_INLINE Vec<D> rounded(Single, D, Vec<D> v) {
  return v;
}
template <class D>
HWY_INLINE Vec<D> rounded(Pair, D d, Vec<D> v) {
  return round_to_bf16(d, v);
}

// Loads a block of q or k and maps it; the padding stays 0. NaN stays NaN, which a maximum with 0 would hide.
template <class Step>
HWY_INLINE void load_features(const Part& part, const void* in, int64_t stride, int64_t rows, float* out) {
  const int64_t n = part.head_size, padded = part.padded;
  load_tile(in, part.dtype, stride, rows, n, padded, out);
  if (part.map == FeatureMap::none)
    return;  // as exact as their type, which is bf16 if they will be rounded to it
  for (int64_t r = 0; r < rows; ++r)
    for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
      float* p = out + r * padded + i;
      const auto x = load(d, p);
      const auto mapped = hn::Add(hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x), hn::Set(d, epsilon));
      store(rounded(Step(), d, mapped), d, p);
    });
}

// The feature map's derivative: where it was flat (value still epsilon), the gradient is 0.
HWY_INLINE void mask_flat(const Part& part, const float* mapped, int64_t count, float* gradient) {
  if (part.map == FeatureMap::none) return;
  for_lanes(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto rising = hn::Gt(load(d, mapped + i), hn::Set(d, epsilon));
    store(hn::IfThenElseZero(rising, load(d, gradient + i)), d, gradient + i);
  });
}

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  return sum_lanes(n, [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(load(d, a + i), load(d, b + i)); });
}

// q̂·Σk̂ of one query, away from 0.
HWY_INLINE float denominator(const Part& part, const float* q) {
  const float z = dot(q, part.total, part.padded);
  return z < 0.0f ? z - part.guard : z + part.guard;
}

HWY_INLINE void add_scaled(const float* x, float factor, int64_t n, float* sum) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    store(hn::MulAdd(load(d, x + i), hn::Set(d, factor), load(d, sum + i)), d, sum + i);
  });
}

// out (rows, padded) = a·b for a block a of f32s and a right operand b as in Part.
HWY_INLINE void multiply(Single, const Part& part, const float* a, const float* b, int64_t rows, float* out) {
  tile_product(a, part.padded, 1, b, part.padded, rows, part.padded, part.head_size, out, part.padded, false);
}
HWY_INLINE void multiply(Pair, const Part& part, const float* a, const float* b, int64_t rows, float* out) {
  float* pairs = part.scratch + 4 * block_tokens * part.padded;
  pair_columns(a, rows, part.padded, pairs);
  tile_product<Pair>(pairs, part.padded / 2, 1, b, part.padded, rows, part.padded, part.head_size / 2, out,
                     part.padded, false);
}

// part.sums = or += aᵀ·b for blocks a and b of f32s.
HWY_INLINE void gather(Single, const Part& part, const float* a, const float* b, int64_t rows, bool add) {
  tile_product(a, 1, part.padded, b, part.padded, part.head_size, part.padded, rows, part.sums, part.padded,
               add);
}
HWY_INLINE void gather(Pair, const Part& part, const float* a, const float* b, int64_t rows, bool add) {
  float *left = part.scratch + 4 * block_tokens * part.padded, *right = left + block_tokens * part.padded;
  pair_rows(a, rows, part.padded, left);
  pair_rows(b, rows, part.padded, right);
  tile_product<Pair>(left, 1, part.padded, right, part.padded, part.head_size, part.padded, (rows + 1) / 2,
                     part.sums, part.padded, add);
}

// A state's matrix and its transpose as right operands.
void prepare(Single, const float* state, int64_t n, int64_t padded, float* matrix, float* transposed) {
  if (matrix)
    for (int64_t i = 0; i < n * padded; ++i) matrix[i] = state[i];
  if (transposed) transpose_tile(state, padded, n, n, transposed, padded);
}
void prepare(Pair, const float* state, int64_t n, int64_t padded, float* matrix, float* transposed) {
  if (matrix) pair_rows(state, n, padded, matrix);
  if (!transposed) return;
  // Pairs of a row's neighbours, written for now behind where they will lie transposed.
  float* pairs = transposed + n / 2 * padded;
  pair_columns(state, n, padded, pairs);
  transpose_tile(pairs, padded / 2, n, n / 2, transposed, padded);
}

// sums = Σ k̂ᵀv and, as last row, Σ k̂.
template <class Step>
void gather_keys_as(const Part& part) {
  const int64_t n = part.head_size, padded = part.padded;
  float *k = part.scratch, *v = k + block_tokens * padded, *total = part.sums + n * padded;
  for (int64_t i = 0; i < padded; ++i) total[i] = 0.0f;
  for (int64_t t = 0; t < part.tokens; t += block_tokens) {
    const int64_t rows = HWY_MIN(block_tokens, part.tokens - t);
    load_features<Step>(part, row_of(part.k, part.dtype, part.kv_stride, t), part.kv_stride, rows, k);
    load_tile(row_of(part.v, part.dtype, part.kv_stride, t), part.dtype, part.kv_stride, rows, n, padded, v);
    gather(Step(), part, k, v, rows, t > 0);
    for (int64_t r = 0; r < rows; ++r) add_scaled(k + r * padded, 1.0f, padded, total);
  }
}

// out = q̂·Σk̂ᵀv / z with z = q̂·Σk̂, guarded
template <class Step>
void answer_queries_as(const Part& part) {
  const int64_t n = part.head_size, padded = part.padded;
  float *q = part.scratch, *o = q + block_tokens * padded;
  for (int64_t t = 0; t < part.tokens; t += block_tokens) {
    const int64_t rows = HWY_MIN(block_tokens, part.tokens - t);
    load_features<Step>(part, row_of(part.q, part.dtype, part.q_stride, t), part.q_stride, rows, q);
    multiply(Step(), part, q, part.matrix, rows, o);
    for (int64_t r = 0; r < rows; ++r)
      scale_values(1.0f / denominator(part, q + r * padded), padded, o + r * padded);
    store_tile(o, padded, rows, n, row_of(part.out, part.dtype, part.q_stride, t), part.dtype, part.q_stride);
  }
}

// With that z and ĝ = g/z:  dq̂ = ĝ·(Σk̂ᵀv)ᵀ + dz·Σk̂, dz = −q̂·(ĝ·(Σk̂ᵀv)ᵀ)/z.
// Gathers in sums the state's gradient: q̂ᵀĝ and, as last row, Σ dz·q̂.
template <class Step>
void backward_queries_as(const Part& part) {
  const int64_t n = part.head_size, padded = part.padded;
  float *q = part.scratch, *g = q + block_tokens * padded, *dq = g + block_tokens * padded;
  float* dtotal = part.sums + n * padded;
  for (int64_t i = 0; i < padded; ++i) dtotal[i] = 0.0f;
  for (int64_t t = 0; t < part.tokens; t += block_tokens) {
    const int64_t rows = HWY_MIN(block_tokens, part.tokens - t);
    load_features<Step>(part, row_of(part.q, part.dtype, part.q_stride, t), part.q_stride, rows, q);
    load_tile(row_of(part.g, part.g_dtype, part.q_stride, t), part.g_dtype, part.q_stride, rows, n, padded, g);
    for (int64_t r = 0; r < rows; ++r)
      scale_values(1.0f / denominator(part, q + r * padded), padded, g + r * padded);
    multiply(Step(), part, g, part.transposed, rows, dq);
    gather(Step(), part, q, g, rows, t > 0);
    for (int64_t r = 0; r < rows; ++r) {
      const float* q_row = q + r * padded;
      const float dz = -dot(q_row, dq + r * padded, padded) / denominator(part, q_row);
      add_scaled(part.total, dz, padded, dq + r * padded);
      add_scaled(q_row, dz, padded, dtotal);
    }
    mask_flat(part, q, rows * padded, dq);
    store_tile(dq, padded, rows, n, row_of(part.dq, part.dtype, part.q_stride, t), part.dtype, part.q_stride);
  }
}

// dk̂ = v·(dΣk̂ᵀv)ᵀ + dΣk̂;  dv = k̂·dΣk̂ᵀv
template <class Step>
void backward_keys_as(const Part& part) {
  const int64_t n = part.head_size, padded = part.padded;
  float *k = part.scratch, *v = k + block_tokens * padded, *dk = v + block_tokens * padded,
        *dv = dk + block_tokens * padded;
  for (int64_t t = 0; t < part.tokens; t += block_tokens) {
    const int64_t rows = HWY_MIN(block_tokens, part.tokens - t);
    load_features<Step>(part, row_of(part.k, part.dtype, part.kv_stride, t), part.kv_stride, rows, k);
    load_tile(row_of(part.v, part.dtype, part.kv_stride, t), part.dtype, part.kv_stride, rows, n, padded, v);
    multiply(Step(), part, v, part.transposed, rows, dk);
    multiply(Step(), part, k, part.matrix, rows, dv);
    for (int64_t r = 0; r < rows; ++r) add_scaled(part.total, 1.0f, padded, dk + r * padded);
    mask_flat(part, k, rows * padded, dk);
    store_tile(dk, padded, rows, n, row_of(part.dk, part.dtype, part.kv_stride, t), part.dtype, part.kv_stride);
    store_tile(dv, padded, rows, n, row_of(part.dv, part.dtype, part.kv_stride, t), part.dtype, part.kv_stride);
  }
}

void gather_keys(const Part& part) { part.pairs ? gather_keys_as<Pair>(part) : gather_keys_as<Single>(part); }
void answer_queries(const Part& part) {
  part.pairs ? answer_queries_as<Pair>(part) : answer_queries_as<Single>(part);
}
void backward_queries(const Part& part) {
  part.pairs ? backward_queries_as<Pair>(part) : backward_queries_as<Single>(part);
}
void backward_keys(const Part& part) {
  part.pairs ? backward_keys_as<Pair>(part) : backward_keys_as<Single>(part);
}
void prepare_state(bool pairs, const float* state, int64_t n, int64_t padded, float* matrix,
                   float* transposed) {
  pairs ? prepare(Pair(), state, n, padded, matrix, transposed)
        : prepare(Single(), state, n, padded, matrix, transposed);
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
HWY_EXPORT(prepare_state);

namespace {

constexpr int64_t part_tokens = 1024;
constexpr float guard_per_token = 1e-6f;

// How tokens are cut into parts, and where each part's values lie.
struct Layout {
  Layout(const Tensor& q_in, const Tensor& kv_in, int64_t heads_in, FeatureMap map_in)
      : q(q_in), kv(kv_in), heads(heads_in), map(map_in), tokens(q.size(1)), width(q.size(2)),
        head_size(width / heads), padded(pad_tile(head_size)),
        pairs(q.dtype() == DType::bf16 && head_size % 2 == 0 && have_pair_dot()),
        parts(std::max<int64_t>(1, (tokens + part_tokens - 1) / part_tokens)) {}

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
    result.pairs = pairs;
    result.map = map;
    result.guard = map == FeatureMap::none ? guard_per_token * static_cast<float>(tokens) : 0.0f;
    result.tokens = std::min(part_tokens, tokens - first_token(task));
    result.head_size = head_size;
    result.padded = padded;
    result.q_stride = width;
    result.kv_stride = 2 * width;
    return result;
  }

  const Tensor &q, &kv;
  int64_t heads;
  FeatureMap map;
  int64_t tokens, width, head_size, padded;
  bool pairs;
  int64_t parts;
};

template <class Body>
void for_parts(const Layout& layout, Body body) {
  parallel_for(layout.tasks(), 1, [&](int64_t begin, int64_t end) {
    Tensor scratch = Tensor::empty({scratch_blocks, block_tokens, layout.padded});
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

// States as right operands of products, as they are and, where wanted, transposed.
class Operands {
 public:
  enum class Want { plain, transposed, both };

  Operands(const Layout& layout, const Tensor& states, Want want) : layout_(layout), states_(states) {
    const Shape shape{layout.states(), layout.head_size, layout.padded};
    if (want != Want::transposed) plain_ = Tensor::empty(shape);
    if (want != Want::plain) transposed_ = Tensor::empty(shape);
    parallel_for(layout.states(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) HWY_DYNAMIC_DISPATCH(prepare_state)
      (layout.pairs, states.data<float>() + s * layout.state_size(), layout.head_size, layout.padded,
       of(plain_, s), of(transposed_, s));
    });
  }

  // Points a part to its own.
  void give(int64_t task, Part& part) {
    const int64_t s = task / layout_.parts;
    part.total = states_.data<float>() + (s + 1) * layout_.state_size() - layout_.padded;
    part.matrix = of(plain_, s);
    part.transposed = of(transposed_, s);
  }

 private:
  float* of(Tensor& matrices, int64_t s) const {
    return matrices.defined() ? matrices.mutable_data<float>() + s * layout_.head_size * layout_.padded
                              : nullptr;
  }

  const Layout& layout_;
  const Tensor& states_;
  Tensor plain_, transposed_;
};

}  // namespace

void linear_attention_forward(const Tensor& q, const Tensor& kv, int64_t heads, FeatureMap map, Tensor& out,
                              Tensor& state) {
  const Layout layout(q, kv, heads, map);
  Tensor shares = shares_of(layout, state);
  float* share = shares.mutable_data<float>();
  for_parts(layout, [&](int64_t task, Part part) {
    part.sums = share + task * layout.state_size();
    HWY_DYNAMIC_DISPATCH(gather_keys)(part);
  });
  if (layout.parts > 1) add_parts(layout, shares, state);
  Operands operands(layout, state, Operands::Want::plain);
  for_parts(layout, [&](int64_t task, Part part) {
    operands.give(task, part);
    part.out = element(out, layout.q_at(task));
    HWY_DYNAMIC_DISPATCH(answer_queries)(part);
  });
}

void linear_attention_backward(const Tensor& g, const Tensor& q, const Tensor& kv, const Tensor& state,
                               int64_t heads, FeatureMap map, Tensor& dq, Tensor& dkv) {
  const Layout layout(q, kv, heads, map);
  Tensor dstate = Tensor::empty(state.shape());
  Tensor shares = shares_of(layout, dstate);
  float* share = shares.mutable_data<float>();
  Operands operands(layout, state, Operands::Want::transposed);
  for_parts(layout, [&](int64_t task, Part part) {
    operands.give(task, part);
    part.g = element(g, layout.q_at(task));
    part.g_dtype = g.dtype();
    part.dq = element(dq, layout.q_at(task));
    part.sums = share + task * layout.state_size();
    HWY_DYNAMIC_DISPATCH(backward_queries)(part);
  });
  if (layout.parts > 1) add_parts(layout, shares, dstate);
  Operands gradients(layout, dstate, Operands::Want::both);
  for_parts(layout, [&](int64_t task, Part part) {
    gradients.give(task, part);
    part.dk = element(dkv, layout.kv_at(task));
    part.dv = element(dkv, layout.kv_at(task) + layout.width);
    HWY_DYNAMIC_DISPATCH(backward_keys)(part);
  });
}

}  // namespace linnet::ops::cpu
#endif
