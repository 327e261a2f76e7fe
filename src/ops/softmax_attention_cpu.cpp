#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/softmax_attention_cpu.cpp"
#include <hwy/foreach_target.h>

#include <cmath>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/softmax-inl.h"
#include "ops/softmax_attention_cpu.h"

#ifndef LINNET_SOFTMAX_ATTENTION_HEAD
#define LINNET_SOFTMAX_ATTENTION_HEAD
namespace linnet::ops::cpu {

constexpr int64_t query_block = 96, key_block = 128;

// One head of one sample. Keys and values are packed once, as f32, for all blocks of queries. Strides in
// elements.
struct Head {
  const void *q, *k, *v, *g, *out;
  void *dq, *dk, *dv;
  float* packed_keys;    // blocks of (head_size, key_block): keys, transposed
  float* packed_values;  // blocks of (key_block, padded)
  float *tops, *shares;  // (queries): the largest score, and 1/Σ exp(scores − that)
  float* scratch;
  DType dtype, g_dtype;
  int64_t queries, keys, head_size, padded, stride, out_stride;
  float scale;
};

}  // namespace linnet::ops::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

using cpu::Head;
using cpu::key_block;
using cpu::query_block;

void pack_block(const Head& head, int64_t block) {
  const int64_t first = block * key_block, rows = HWY_MIN(key_block, head.keys - first);
  float* keys = head.scratch;  // (key_block, padded)
  load_tile(row_of(head.k, head.dtype, head.stride, first), head.dtype, head.stride, rows, head.head_size,
            head.padded, keys);
  transpose_tile(keys, head.padded, rows, head.head_size, head.packed_keys + block * head.head_size * key_block,
                 key_block);
  load_tile(row_of(head.v, head.dtype, head.stride, first), head.dtype, head.stride, rows, head.head_size,
            head.padded, head.packed_values + block * key_block * head.padded);
}

// The rows first.. of one block of queries against all keys.
void attend_block(const Head& head, int64_t block) {
  const int64_t first = block * query_block, rows = HWY_MIN(query_block, head.queries - first);
  const int64_t padded = head.padded;
  float *q = head.scratch, *out = q + query_block * padded, *scores = out + query_block * padded;
  float top[query_block], total[query_block];
  load_tile(row_of(head.q, head.dtype, head.stride, first), head.dtype, head.stride, rows, head.head_size,
            padded, q);
  scale_values(head.scale, rows * padded, q);
  for (int64_t r = 0; r < rows; ++r) {
    top[r] = -INFINITY;
    total[r] = 0.0f;
  }
  for (int64_t key = 0, b = 0; key < head.keys; key += key_block, ++b) {
    const int64_t keys = HWY_MIN(key_block, head.keys - key);
    tile_product(q, padded, 1, head.packed_keys + b * head.head_size * key_block, key_block, rows, key_block,
                 head.head_size, scores, key_block, false);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = scores + r * key_block;
      const float higher = largest(row, keys, top[r]);
      const float shrink = std::exp(top[r] - higher);  // 0 at the first block
      total[r] = total[r] * shrink + exponentials(row, keys, higher);
      if (b > 0 && shrink != 1.0f) scale_values(shrink, padded, out + r * padded);
      top[r] = higher;
    }
    tile_product(scores, key_block, 1, head.packed_values + b * key_block * padded, padded, rows, padded, keys,
                 out, padded, b > 0);
  }
  for (int64_t r = 0; r < rows; ++r) {
    head.tops[first + r] = top[r];
    head.shares[first + r] = 1.0f / total[r];
    scale_values(head.shares[first + r], padded, out + r * padded);
  }
  store_tile(out, padded, rows, head.head_size,
             row_of(const_cast<void*>(head.out), head.dtype, head.out_stride, first), head.dtype,
             head.out_stride);
}

// Scratch of the backward pass of one head, all f32.
struct Backward {
  float *q, *g, *dq;       // (queries, padded); q is scaled
  float* delta;            // (queries): g·out of each row
  float *k, *kt, *v, *vt;  // (key_block, padded) and (padded, key_block)
  float *dk, *dv;          // (key_block, padded)
  float *p, *ds;           // (query_block, key_block)
};

HWY_INLINE void load_queries(const Head& head, const Backward& s) {
  const int64_t padded = head.padded, n = head.head_size;
  load_tile(head.q, head.dtype, head.stride, head.queries, n, padded, s.q);
  scale_values(head.scale, head.queries * padded, s.q);
  load_tile(head.out, head.dtype, head.out_stride, head.queries, n, padded, s.dq);  // only for delta
  load_tile(head.g, head.g_dtype, head.out_stride, head.queries, n, padded, s.g);
  for (int64_t t = 0; t < head.queries; ++t) {
    const float *g = s.g + t * padded, *o = s.dq + t * padded;
    s.delta[t] =
        sum_lanes(padded, [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(load(d, g + i), load(d, o + i)); });
  }
  for (int64_t i = 0; i < head.queries * padded; ++i) s.dq[i] = 0.0f;
}

// p = exp(scores − top)·share, ds = p·(dp − delta); both 0 beyond the keys that exist.
HWY_INLINE void softmax_gradient(const Head& head, const Backward& s, int64_t first, int64_t rows,
                                 int64_t keys) {
  for (int64_t r = 0; r < rows; ++r) {
    float *p = s.p + r * key_block, *ds = s.ds + r * key_block;
    const float top = head.tops[first + r], share = head.shares[first + r], delta = s.delta[first + r];
    for_lanes(keys, [&](auto d, int64_t i) HWY_ATTR {
      const auto e = hn::Mul(hn::Exp(d, hn::Sub(load(d, p + i), hn::Set(d, top))), hn::Set(d, share));
      store(e, d, p + i);
      store(hn::Mul(e, hn::Sub(load(d, ds + i), hn::Set(d, delta))), d, ds + i);
    });
    for (int64_t i = keys; i < key_block; ++i) p[i] = ds[i] = 0.0f;
  }
}

void backward_head(const Head& head) {
  const int64_t padded = head.padded, n = head.head_size, queries = head.queries;
  Backward s{};
  float* next = head.scratch;
  const auto take = [&](int64_t count) HWY_ATTR {
    float* p = next;
    next += pad_tile(count);
    return p;
  };
  s.q = take(queries * padded), s.g = take(queries * padded), s.dq = take(queries * padded),
  s.delta = take(queries);
  s.k = take(key_block * padded), s.kt = take(key_block * padded);
  s.v = take(key_block * padded), s.vt = take(key_block * padded);
  s.dk = take(key_block * padded), s.dv = take(key_block * padded);
  s.p = take(query_block * key_block), s.ds = take(query_block * key_block);
  load_queries(head, s);
  for (int64_t key = 0; key < head.keys; key += key_block) {
    const int64_t keys = HWY_MIN(key_block, head.keys - key);
    load_tile(row_of(head.k, head.dtype, head.stride, key), head.dtype, head.stride, keys, n, padded, s.k);
    load_tile(row_of(head.v, head.dtype, head.stride, key), head.dtype, head.stride, keys, n, padded, s.v);
    transpose_tile(s.k, padded, keys, n, s.kt, key_block);
    transpose_tile(s.v, padded, keys, n, s.vt, key_block);
    for (int64_t i = 0; i < key_block * padded; ++i) s.dk[i] = s.dv[i] = 0.0f;
    for (int64_t first = 0; first < queries; first += query_block) {
      const int64_t rows = HWY_MIN(query_block, queries - first);
      const float *q = s.q + first * padded, *g = s.g + first * padded;
      tile_product(q, padded, 1, s.kt, key_block, rows, key_block, n, s.p, key_block, false);
      tile_product(g, padded, 1, s.vt, key_block, rows, key_block, n, s.ds, key_block, false);
      softmax_gradient(head, s, first, rows, keys);
      tile_product(s.p, 1, key_block, g, padded, keys, padded, rows, s.dv, padded, true);
      tile_product(s.ds, 1, key_block, q, padded, keys, padded, rows, s.dk, padded, true);
      tile_product(s.ds, key_block, 1, s.k, padded, rows, padded, keys, s.dq + first * padded, padded, true);
    }
    store_tile(s.dk, padded, keys, n, row_of(head.dk, head.dtype, head.stride, key), head.dtype, head.stride);
    store_tile(s.dv, padded, keys, n, row_of(head.dv, head.dtype, head.stride, key), head.dtype, head.stride);
  }
  scale_values(head.scale, queries * padded, s.dq);
  store_tile(s.dq, padded, queries, n, head.dq, head.dtype, head.stride);
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops::cpu {

HWY_EXPORT(pack_block);
HWY_EXPORT(attend_block);
HWY_EXPORT(backward_head);

namespace {

// Where the values of head `state` (of batch·heads) begin among columns of a tensor (batch, tokens, row).
int64_t head_index(const Tensor& x, int64_t first, int64_t heads, int64_t head_size, int64_t state) {
  return state / heads * x.size(1) * x.size(2) + first + state % heads * head_size;
}

Head head_at(const SoftmaxInputs& in, int64_t heads, int64_t width, int64_t state) {
  const int64_t head_size = width / heads;
  const auto place = [&](const Columns& x) {
    return element(x.tensor, head_index(x.tensor, x.first, heads, head_size, state));
  };
  Head head{};
  head.q = place(in.q);
  head.k = place(in.k);
  head.v = place(in.v);
  head.dtype = in.q.tensor.dtype();
  head.queries = in.q.tensor.size(1);
  head.keys = in.k.tensor.size(1);
  head.head_size = head_size;
  head.padded = pad_tile(head_size);
  head.stride = in.q.tensor.size(2);
  head.out_stride = width;
  head.scale = 1.0f / std::sqrt(static_cast<float>(head_size));
  return head;
}

}  // namespace

void softmax_attention_forward(const SoftmaxInputs& in, int64_t heads, Tensor& out, Tensor& sums) {
  const int64_t queries = out.size(1), width = out.size(2), states = out.size(0) * heads;
  const int64_t head_size = width / heads, padded = pad_tile(head_size);
  const int64_t key_blocks = (in.k.tensor.size(1) + key_block - 1) / key_block;
  const int64_t query_blocks = (queries + query_block - 1) / query_block;
  Tensor keys = Tensor::empty({states, key_blocks, head_size * key_block});
  Tensor values = Tensor::empty({states, key_blocks, padded * key_block});
  const auto prepared = [&](int64_t state, Tensor& scratch) {
    Head head = head_at(in, heads, width, state);
    head.packed_keys = keys.mutable_data<float>() + state * key_blocks * head_size * key_block;
    head.packed_values = values.mutable_data<float>() + state * key_blocks * padded * key_block;
    head.tops = sums.mutable_data<float>() + state * queries;
    head.shares = head.tops + states * queries;
    head.out = element(out, head_index(out, 0, heads, head_size, state));
    head.scratch = scratch.mutable_data<float>();
    return head;
  };
  parallel_for(states * key_blocks, 1, [&](int64_t begin, int64_t end) {
    Tensor scratch = Tensor::empty({key_block, padded});
    for (int64_t i = begin; i < end; ++i)
      HWY_DYNAMIC_DISPATCH(pack_block)(prepared(i / key_blocks, scratch), i % key_blocks);
  });
  parallel_for(states * query_blocks, 1, [&](int64_t begin, int64_t end) {
    Tensor scratch = Tensor::empty({query_block * (2 * padded + key_block)});
    for (int64_t i = begin; i < end; ++i)
      HWY_DYNAMIC_DISPATCH(attend_block)(prepared(i / query_blocks, scratch), i % query_blocks);
  });
}

void softmax_attention_backward(const Tensor& g, const SoftmaxInputs& in, const Tensor& out, const Tensor& sums,
                                int64_t heads, SoftmaxInputs& into) {
  const int64_t queries = out.size(1), width = out.size(2), states = out.size(0) * heads;
  const int64_t head_size = width / heads, padded = pad_tile(head_size);
  Tensor of_rows = sums;
  const auto place = [&](Columns& x, int64_t state) {
    return element(x.tensor, head_index(x.tensor, x.first, heads, head_size, state));
  };
  parallel_for(states, 1, [&](int64_t begin, int64_t end) {
    Tensor scratch = Tensor::empty({3 * pad_tile(queries * padded) + pad_tile(queries) +
                                    6 * key_block * padded + 2 * query_block * key_block});
    for (int64_t state = begin; state < end; ++state) {
      Head head = head_at(in, heads, width, state);
      head.dq = place(into.q, state);
      head.dk = place(into.k, state);
      head.dv = place(into.v, state);
      head.g = element(g, head_index(out, 0, heads, head_size, state));
      head.g_dtype = g.dtype();
      head.out = element(out, head_index(out, 0, heads, head_size, state));
      head.tops = of_rows.mutable_data<float>() + state * queries;
      head.shares = head.tops + states * queries;
      head.scratch = scratch.mutable_data<float>();
      HWY_DYNAMIC_DISPATCH(backward_head)(head);
    }
  });
}

}  // namespace linnet::ops::cpu
#endif
