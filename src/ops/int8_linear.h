// Linear layers in 8 bits (W8A8), for inference: weights are rounded once, to a scale for each output channel,
// activations as they come, to a scale and a zero point for each token; sums are exact 32-bit integers.
//
//   x ≈ sₓ(q − z), q in 0..255 per token;  w ≈ s_w·p, p in −127..127 per output;
//   y = sₓ·s_w·(Σ q·p − z·Σ p) + b
//
// A zero point of its own lets a token that came through GELU, hardly negative, use all 256 steps.
#pragma once

#include <memory>

#include "ops/matmul.h"

namespace linnet::ops {

/// A weight (out, in) in i8 and the scale (out, 1) f32 of each of its rows.
struct Int8Matrix {
  Tensor values, scale;
};

/// Rounds a weight of any float type; a row's largest magnitude becomes ±127. Throws Error when a value is not
/// finite.
Int8Matrix quantize(const Tensor& weight);
/// The floats that the rounded weight stands for, as f32 or bf16 (or f16 on a GPU).
Tensor dequantize(const Int8Matrix& weight, DType dtype);

/// True if the device is a CPU that multiplies 8-bit integers with 32-bit sums (VNNI); without, dequantised
/// products are faster and exact. A GPU has dequantised ones.
bool have_int8_products(const Device& device = {});

/// A weight laid out for 8-bit products, for repeated use; on the CPU only. Throws Error unless
/// have_int8_products().
class PackedInt8Weight {
 public:
  PackedInt8Weight() = default;
  explicit PackedInt8Weight(const Int8Matrix& weight);
  bool defined() const { return state_ != nullptr; }

 private:
  friend Tensor linear(const Tensor&, const PackedInt8Weight&, const Tensor&, Activation, DType);
  struct State;
  std::shared_ptr<State> state_;
};

/// x (..., in) f32 or bf16 → (..., out) of type out_dtype (f32 or bf16); bias (out) f32 or undefined. A token
/// that holds an infinity or NaN gives NaN. Not differentiable.
Tensor linear(const Tensor& x, const PackedInt8Weight& weight, const Tensor& bias, Activation activation,
              DType out_dtype);

}  // namespace linnet::ops
