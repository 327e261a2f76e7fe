// Operations that move or repeat values without changing them, and plain sums: patches, chunks, rows added to
// every sample, means over tokens, embeddings.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace linnet::ops {

/// (batch, c, h, w) → (batch, h/p·w/p, c·p·p): the rows that a patch embedding's convolution of stride p sees,
/// in the order of its weight (c, p, p). Throws Error unless p divides h and w.
Tensor patchify(const Tensor& x, int64_t patch);

/// (batch, rows·columns, p·p·c) → (batch, c, rows·p, columns·p); a token's values are ordered (p, q, channel).
Tensor unpatchify(const Tensor& tokens, int64_t rows, int64_t columns, int64_t patch);

/// (..., n·d) of any type → n tensors (..., d).
std::vector<Tensor> chunk(const Tensor& x, int64_t n);

/// x (rows, columns) f32 → (columns, rows).
Tensor transpose(const Tensor& x);

/// a + b of the same shape, f32.
Tensor add(const Tensor& a, const Tensor& b);

/// x (n, d) + row (d values), the same for every row; f32.
Tensor add_row(const Tensor& x, const Tensor& row);

/// (n, d₁) and (n, d₂) beside each other: (n, d₁ + d₂), f32.
Tensor concat_columns(const Tensor& left, const Tensor& right);

/// x (batch, tokens, d) + rows (tokens, d), the same for every sample; f32. The gradient goes to x alone.
Tensor add_positions(const Tensor& x, const Tensor& positions);

/// x (batch, tokens, d) f32 → (batch, d): the mean over the tokens.
Tensor mean_tokens(const Tensor& x);

/// Rows of table (count, d) by index (i64); throws Error on an index outside.
Tensor embedding(const Tensor& table, const Tensor& indices);

/// DiT's timestep embedding: t (n) f32 → (n, width): cosines, then sines, at frequencies 10000^(−i/(width/2)).
Tensor timestep_embedding(const Tensor& t, int64_t width);

}  // namespace linnet::ops
