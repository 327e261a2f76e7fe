#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/ragged_attention_cpu.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/ragged_attention_cpu.h"
#include "ops/softmax-inl.h"

#ifndef LINNET_RAGGED_ATTENTION_PART
#define LINNET_RAGGED_ATTENTION_PART
namespace linnet::ops::cpu {

constexpr int64_t ragged_block = 96;  // queries at a time

// One head of one sequence. Texts are short, so all its keys are scored at once. Strides in elements.
struct RaggedPart {
  const void *q, *k, *v, *g, *out;
  void *dq, *dk, *dv;
  DType dtype, g_dtype;
  int64_t queries, keys, head_size, padded, padded_keys;
  int64_t q_stride, k_stride, v_stride, out_stride;
  float scale;
  const float* bias;     // at the entry of distance 0; null if there is none
  float* dbias;          // likewise
  float* packed_keys;    // (head_size, padded_keys): keys, transposed
  float* packed_values;  // (keys, padded)
  float *tops, *shares;  // (queries): the largest score, and 1/Σ exp(scores − that)
  float* scratch;
};

}  // namespace linnet::ops::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

using cpu::ragged_block;
using cpu::RaggedPart;

void pack_keys(const RaggedPart& part) {
  load_tile(part.k, part.dtype, part.k_stride, part.keys, part.head_size, part.padded, part.scratch);
  transpose_tile(part.scratch, part.padded, part.keys, part.head_size, part.packed_keys, part.padded_keys);
  load_tile(part.v, part.dtype, part.v_stride, part.keys, part.head_size, part.padded, part.packed_values);
}

// scores of `rows` queries from `first` on, which are scaled.
HWY_INLINE void score(const RaggedPart& part, const float* q, int64_t first, int64_t rows, float* scores) {
  tile_product(q, part.padded, 1, part.packed_keys, part.padded_keys, rows, part.padded_keys, part.head_size,
               scores, part.padded_keys, false);
  if (!part.bias) return;
  for (int64_t r = 0; r < rows; ++r) {
    float* row = scores + r * part.padded_keys;
    const float* bias = part.bias - (first + r);
    for_lanes(part.keys, [&](auto d, int64_t i)
                             HWY_ATTR { store(hn::Add(load(d, row + i), load(d, bias + i)), d, row + i); });
  }
}

void attend_rows(const RaggedPart& part, int64_t block) {
  const int64_t first = block * ragged_block, rows = HWY_MIN(ragged_block, part.queries - first);
  float *q = part.scratch, *out = q + ragged_block * part.padded, *scores = out + ragged_block * part.padded;
  load_tile(row_of(part.q, part.dtype, part.q_stride, first), part.dtype, part.q_stride, rows, part.head_size,
            part.padded, q);
  scale_values(part.scale, rows * part.padded, q);
  score(part, q, first, rows, scores);
  for (int64_t r = 0; r < rows; ++r) {
    float* row = scores + r * part.padded_keys;
    const float top = largest(row, part.keys, row[0]);
    const float total = exponentials(row, part.keys, top);
    scale_values(1.0f / total, part.keys, row);
    part.tops[first + r] = top;
    part.shares[first + r] = 1.0f / total;
  }
  tile_product(scores, part.padded_keys, 1, part.packed_values, part.padded, rows, part.padded, part.keys, out,
               part.padded, false);
  store_tile(out, part.padded, rows, part.head_size,
             row_of(const_cast<void*>(part.out), part.dtype, part.out_stride, first), part.dtype,
             part.out_stride);
}

// p = exp(scores − top)·share, ds = p·(dp − g·out); both 0 beyond the keys that exist.
HWY_INLINE void ragged_gradient(const RaggedPart& part, int64_t first, int64_t rows, const float* g,
                                const float* out, float* p, float* ds) {
  for (int64_t r = 0; r < rows; ++r, g += part.padded, out += part.padded) {
    const float delta = sum_lanes(
        part.padded, [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(load(d, g + i), load(d, out + i)); });
    const float top = part.tops[first + r], share = part.shares[first + r];
    float *p_row = p + r * part.padded_keys, *ds_row = ds + r * part.padded_keys;
    for_lanes(part.keys, [&](auto d, int64_t i) HWY_ATTR {
      const auto e = hn::Mul(hn::Exp(d, hn::Sub(load(d, p_row + i), hn::Set(d, top))), hn::Set(d, share));
      store(e, d, p_row + i);
      store(hn::Mul(e, hn::Sub(load(d, ds_row + i), hn::Set(d, delta))), d, ds_row + i);
    });
    for (int64_t i = part.keys; i < part.padded_keys; ++i) p_row[i] = ds_row[i] = 0.0f;
    if (!part.dbias) continue;
    float* dbias = part.dbias - (first + r);
    for_lanes(part.keys, [&](auto d, int64_t i) HWY_ATTR {
      store(hn::Add(load(d, dbias + i), load(d, ds_row + i)), d, dbias + i);
    });
  }
}

// Scratch, all f32: five of a block of queries, two of scores, four of the keys.
void backward_part(const RaggedPart& part) {
  const int64_t padded = part.padded, padded_keys = part.padded_keys, n = part.head_size;
  float* next = part.scratch;
  const auto take = [&](int64_t count) HWY_ATTR {
    float* taken = next;
    next += pad_tile(count);
    return taken;
  };
  float *q = take(ragged_block * padded), *g = take(ragged_block * padded), *out = take(ragged_block * padded),
        *dq = take(ragged_block * padded), *p = take(ragged_block * padded_keys),
        *ds = take(ragged_block * padded_keys), *keys = take(part.keys * padded),
        *values_t = take(padded * padded_keys), *dk = take(part.keys * padded), *dv = take(part.keys * padded);
  load_tile(part.k, part.dtype, part.k_stride, part.keys, n, padded, keys);
  transpose_tile(part.packed_values, padded, part.keys, n, values_t, padded_keys);
  for (int64_t i = 0; i < part.keys * padded; ++i) dk[i] = dv[i] = 0.0f;
  for (int64_t first = 0; first < part.queries; first += ragged_block) {
    const int64_t rows = HWY_MIN(ragged_block, part.queries - first);
    load_tile(row_of(part.q, part.dtype, part.q_stride, first), part.dtype, part.q_stride, rows, n, padded, q);
    scale_values(part.scale, rows * padded, q);
    load_tile(row_of(part.g, part.g_dtype, part.out_stride, first), part.g_dtype, part.out_stride, rows, n,
              padded, g);
    load_tile(row_of(part.out, part.dtype, part.out_stride, first), part.dtype, part.out_stride, rows, n,
              padded, out);
    score(part, q, first, rows, p);
    tile_product(g, padded, 1, values_t, padded_keys, rows, padded_keys, n, ds, padded_keys, false);
    ragged_gradient(part, first, rows, g, out, p, ds);
    tile_product(p, 1, padded_keys, g, padded, part.keys, padded, rows, dv, padded, true);
    tile_product(ds, 1, padded_keys, q, padded, part.keys, padded, rows, dk, padded, true);
    tile_product(ds, padded_keys, 1, keys, padded, rows, padded, part.keys, dq, padded, false);
    scale_values(part.scale, rows * padded, dq);
    store_tile(dq, padded, rows, n, row_of(part.dq, part.dtype, part.q_stride, first), part.dtype,
               part.q_stride);
  }
  store_tile(dk, padded, part.keys, n, part.dk, part.dtype, part.k_stride);
  store_tile(dv, padded, part.keys, n, part.dv, part.dtype, part.v_stride);
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops::cpu {

HWY_EXPORT(pack_keys);
HWY_EXPORT(attend_rows);
HWY_EXPORT(backward_part);

namespace {

// Knows where each head of each sequence lies; parts count heads of the first sequence first.
class Parts {
 public:
  Parts(const RaggedInputs& in, const RaggedAttention& how)
      : in_(in), how_(how), heads_(how.heads), sequences_(static_cast<int64_t>(how.keys.size()) - 1),
        head_size_(in.q.tensor.size(1) / heads_), padded_(pad_tile(head_size_)) {
    for (int64_t s = 0; s < sequences_; ++s) {
      longest_queries_ = std::max(longest_queries_, queries_of(s));
      longest_keys_ = std::max(longest_keys_, pad_tile(keys_of(s)));
      keys_before_.push_back(keys_before_.back() + pad_tile(keys_of(s)));
    }
  }

  int64_t count() const { return sequences_ * heads_; }
  int64_t padded() const { return padded_; }
  int64_t longest_keys() const { return longest_keys_; }
  // Of all parts' packed keys and values: each has room for its own alone, as one text may be far longer than
  // others.
  int64_t packed_size() const { return 2 * padded_ * heads_ * keys_before_.back(); }
  int64_t packed_at(int64_t index) const {
    const auto s = static_cast<size_t>(index / heads_);
    return 2 * padded_ * (heads_ * keys_before_[s] + index % heads_ * (keys_before_[s + 1] - keys_before_[s]));
  }
  int64_t most_blocks() const { return (longest_queries_ + ragged_block - 1) / ragged_block; }

  RaggedPart at(int64_t index) const {
    const int64_t s = index / heads_, head = index % heads_;
    RaggedPart part{};
    part.q = place(in_.q, how_.queries, s, head);
    part.k = place(in_.k, how_.keys, s, head);
    part.v = place(in_.v, how_.keys, s, head);
    part.dtype = in_.q.tensor.dtype();
    part.queries = queries_of(s);
    part.keys = keys_of(s);
    part.head_size = head_size_;
    part.padded = padded_;
    part.padded_keys = pad_tile(part.keys);
    part.q_stride = in_.q.tensor.size(1);
    part.k_stride = in_.k.tensor.size(1);
    part.v_stride = in_.v.tensor.size(1);
    part.out_stride = head_size_ * heads_;
    part.scale = how_.scale;
    if (in_.bias.defined()) part.bias = in_.bias.data<float>() + head * in_.bias.size(1) + in_.bias.size(1) / 2;
    return part;
  }
  int64_t first_query(int64_t index) const { return how_.queries[static_cast<size_t>(index / heads_)]; }
  const void* place(const Columns& columns, const Offsets& offsets, int64_t s, int64_t head) const {
    return element(columns.tensor, offsets[static_cast<size_t>(s)] * columns.tensor.size(1) + columns.first +
                                       head * head_size_);
  }

 private:
  int64_t queries_of(int64_t s) const {
    return how_.queries[static_cast<size_t>(s + 1)] - how_.queries[static_cast<size_t>(s)];
  }
  int64_t keys_of(int64_t s) const {
    return how_.keys[static_cast<size_t>(s + 1)] - how_.keys[static_cast<size_t>(s)];
  }

  const RaggedInputs& in_;
  const RaggedAttention& how_;
  int64_t heads_, sequences_, head_size_, padded_, longest_queries_ = 0, longest_keys_ = 0;
  std::vector<int64_t> keys_before_{0};  // padded, in all sequences before each
};

}  // namespace

void ragged_attention_forward(const RaggedInputs& in, const RaggedAttention& how, Tensor& out, Tensor& sums) {
  const Parts parts(in, how);
  const int64_t padded = parts.padded(), most_keys = parts.longest_keys(), blocks = parts.most_blocks();
  const int64_t rows = in.q.tensor.size(0);
  Tensor packed = Tensor::empty({parts.packed_size()});
  const Columns target{out};
  const auto prepared = [&](int64_t index, Tensor& scratch) {
    RaggedPart part = parts.at(index);
    part.packed_keys = packed.mutable_data<float>() + parts.packed_at(index);
    part.packed_values = part.packed_keys + part.padded_keys * padded;
    part.tops = sums.mutable_data<float>() + index % how.heads * rows + parts.first_query(index);
    part.shares = part.tops + how.heads * rows;
    part.out = parts.place(target, how.queries, index / how.heads, index % how.heads);
    part.scratch = scratch.mutable_data<float>();
    return part;
  };
  parallel_for(parts.count(), 1, [&](int64_t begin, int64_t end) {
    Tensor scratch = Tensor::empty({most_keys, padded});
    for (int64_t i = begin; i < end; ++i) HWY_DYNAMIC_DISPATCH(pack_keys)(prepared(i, scratch));
  });
  parallel_for(parts.count() * blocks, 1, [&](int64_t begin, int64_t end) {
    Tensor scratch = Tensor::empty({ragged_block * (2 * padded + most_keys)});
    for (int64_t i = begin; i < end; ++i) {
      const RaggedPart part = prepared(i / blocks, scratch);
      if (i % blocks * ragged_block < part.queries) HWY_DYNAMIC_DISPATCH(attend_rows)(part, i % blocks);
    }
  });
}

void ragged_attention_backward(const Tensor& g, const RaggedInputs& in, const RaggedAttention& how,
                               const Tensor& out, const Tensor& sums, RaggedInputs& into) {
  const Parts parts(in, how);
  const int64_t padded = parts.padded(), most_keys = parts.longest_keys(), heads = how.heads;
  const int64_t distances = in.bias.defined() ? in.bias.size(1) : 0, rows = in.q.tensor.size(0);
  Tensor of_rows = sums;
  Tensor dbias = into.bias.defined() ? Tensor::zeros({parts.count(), distances}) : Tensor();
  const Columns gradient{g}, result{out};
  parallel_for(parts.count(), 1, [&](int64_t begin, int64_t end) {
    Tensor scratch =
        Tensor::empty({4 * ragged_block * padded + 2 * ragged_block * most_keys + 6 * most_keys * padded});
    for (int64_t i = begin; i < end; ++i) {
      RaggedPart part = parts.at(i);
      const int64_t s = i / heads, head = i % heads;
      part.g = parts.place(gradient, how.queries, s, head);
      part.g_dtype = g.dtype();
      part.out = parts.place(result, how.queries, s, head);
      part.dq = const_cast<void*>(parts.place(into.q, how.queries, s, head));
      part.dk = const_cast<void*>(parts.place(into.k, how.keys, s, head));
      part.dv = const_cast<void*>(parts.place(into.v, how.keys, s, head));
      part.tops = of_rows.mutable_data<float>() + head * rows + parts.first_query(i);
      part.shares = part.tops + heads * rows;
      part.packed_keys = scratch.mutable_data<float>();
      part.packed_values = part.packed_keys + most_keys * padded;
      part.scratch = part.packed_values + most_keys * padded;
      if (dbias.defined()) part.dbias = dbias.mutable_data<float>() + i * distances + distances / 2;
      // Packing borrows the scratch behind, which is free until then.
      HWY_DYNAMIC_DISPATCH(pack_keys)(part);
      HWY_DYNAMIC_DISPATCH(backward_part)(part);
    }
  });
  for (int64_t i = 0; dbias.defined() && i < parts.count(); ++i)  // in the order of sequences
    for (int64_t j = 0; j < distances; ++j)
      into.bias.mutable_data<float>()[i % heads * distances + j] += dbias.data<float>()[i * distances + j];
}

}  // namespace linnet::ops::cpu
#endif
