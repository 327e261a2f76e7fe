// CPU kernels of 8-bit linear layers: what comes before the integer product and after it. Rows are tokens.
#pragma once

#include "ops/matmul.h"

namespace linnet::ops::cpu {

/// How a token was rounded: x ≈ scale·(q − zero).
struct TokenScale {
  float scale;
  int32_t zero;
};

/// Rows begin..end of x (rows, in), f32 or bf16, rounded to q (end − begin, in), with their scales.
void quantize_tokens(const Tensor& x, int64_t begin, int64_t end, uint8_t* q, TokenScale* scales);

/// Rows of 8-bit numbers times each row's scale, as f32 or bf16.
void scale_rows(const int8_t* q, const float* scales, int64_t rows, int64_t n, void* out, DType dtype);

/// The inverse of the product: rows begin..end of out (rows, columns), f32 or bf16, are
/// activation(scale·weight_scale·(sums − zero·weight_sums) + bias) of sums (end − begin, columns). bias may be
/// null.
struct Int8Result {
  const int32_t* sums;
  const TokenScale* scales;
  const float* weight_scale;   // (columns)
  const int32_t* weight_sums;  // (columns): Σ over the inputs of the rounded weights
  const float* bias;
  Activation activation;
};
void write_int8_result(const Int8Result& result, int64_t begin, int64_t end, Tensor& out);

}  // namespace linnet::ops::cpu
