// The three products that linear attention and its gradient consist of, as its kernel files offer them: by
// tensor cores for 16-bit types (linear_attention_gather_cuda.cu, linear_attention_rows_cuda.cu, and files of
// the same names with _groups for what Hopper has), by plain multiply-adds for f32 and for sizes that tiles do
// not take (linear_attention_plain_cuda.cu). linear_attention_cuda.cu puts them together.
//
// Sums over the tokens are held as means: their ratio is the same, and f16 holds means of any number of tokens.
// A "state" is one head of one sample.
#pragma once

#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace linnet::cuda::linear_attention {

using ops::ColumnView;

/// Features are f(x) = relu(x) + 1e-6, rounded to x's type, or x itself.
constexpr float epsilon = 1e-6f;

struct Shape {
  int64_t batch, tokens, heads, head_size;
  bool mapped;  ///< whether f is more than x itself
  DType dtype;

  int64_t states() const { return batch * heads; }
};

/// matrix[i, j] = mean over t of w[t]·f(a[t, i])·b[t, j] and total[i] = mean over t of w[t]·f(a[t, i])·e[t].
struct Gather {
  ColumnView a, b;
  const float *w, *e;  ///< (states, tokens); null: ones
  void* matrix;        ///< (states, head_size, head_size), of the type that multiplies it
  float* total;        ///< (states, head_size)
};

/// y = f(x)·matrix, divided by z = f(x)·total away from 0 unless total is null, plus what y held if `add`.
struct Answer {
  ColumnView x;
  const void* matrix;
  const float* total;
  float* inverse;  ///< 1/z (states, tokens), or null
  ColumnView y;
  bool add;
};

/// The gradient y of what stands under f, from p = x·matrixᵀ:
///   of keys (inverse null):  y = f'(under)·(p + total)
///   of queries:              y = f'(under)·inverse·(p − along·total),  along = inverse·(f(under)·p)
struct Gradient {
  ColumnView x, under;
  const void* matrix;
  const float* total;
  const float* inverse;
  float* against;  ///< −along (states, tokens); null with keys
  ColumnView y;
};

struct Products {
  void (*gather)(const Shape& shape, const Gather& step);
  void (*answer)(const Shape& shape, const Answer& step);
  void (*gradient)(const Shape& shape, const Gradient& step);
};
extern const Products by_tiles, by_plain;
/// Whether tiles can multiply such heads on this card.
bool tiles_fit(DType dtype, int64_t head_size);

/// Into how many parts the tokens of each state are cut, so that `blocks` blocks (of one part) fill the card,
/// whose multiprocessors take so many together: fewest waves of blocks, where a part costs as much as some
/// tokens more.
int64_t parts_of(int64_t tokens, int64_t blocks, int64_t together = 1);

/// shares (states, parts, head_size + 1, head_size), whose last row is the total, added up in order and divided
/// by the number of tokens.
template <class M>
void add_shares(const Shape& shape, const float* shares, int64_t parts, M* matrix, float* total);

/// NaN stays NaN.
__device__ __forceinline__ float feature(float x) { return (x < 0.0f ? 0.0f : x) + epsilon; }

/// The denominator's distance from 0; see ops/linear_attention.h.
__device__ __forceinline__ float away_from_zero(float z, bool mapped) {
  if (mapped) return z;
  return z < 0.0f ? z - epsilon : z + epsilon;
}

/// Where a view's elements of one head begin, `state` counted over samples and heads.
template <class T>
__device__ __forceinline__ T* rows_of(T* data, int64_t stride, int64_t state, int64_t heads, int64_t tokens,
                                      int64_t head_size) {
  return data + state / heads * tokens * stride + state % heads * head_size;
}

}  // namespace linnet::cuda::linear_attention
