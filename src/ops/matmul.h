// Matrix products on the CPU, by oneDNN. Operands are strided views, so that transposes cost nothing;
// primitives are made once per shape and kept. Not differentiable: operations build on it.
#pragma once

#include <memory>

#include "core/tensor.h"
#include "ops/matrix_view.h"

namespace linnet::ops {

/// The tensor seen as a matrix whose columns are its last dimension.
MatrixView as_matrix(const Tensor& tensor);

/// a·b (+ bias over columns) (then activation), or added to `into` when accumulate. a and b share a dtype (f32
/// or bf16); sums are f32; into is f32 or bf16. bias may be undefined, else of any float type.
struct MatmulOptions {
  Tensor bias = {};
  Activation activation = Activation::none;
  bool accumulate = false;
};
void matmul(const MatrixView& a, const MatrixView& b, Tensor& into, const MatmulOptions& options = {});

/// A weight (out, in) converted to a product type and laid out as oneDNN likes it best, for repeated use.
class PackedWeight {
 public:
  PackedWeight() = default;
  PackedWeight(const Tensor& weight, DType dtype);
  bool defined() const { return state_ != nullptr; }
  DType dtype() const;
  int64_t in_features() const;
  int64_t out_features() const;
  /// x (rows, in) · weightᵀ into (rows, out).
  void apply(const MatrixView& x, Tensor& into, const MatmulOptions& options) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// into (out, in) f32 = gᵀ·x for dense bf16 g (rows, out) and x (rows, in): the gradient of a linear layer's
/// weight.
void weight_gradient(const MatrixView& g, const MatrixView& x, Tensor& into);

/// Fastest product type that the device really has instructions for: of a CPU bf16 or f32, of a GPU bf16 or
/// f16.
DType fastest_product_dtype(const Device& device = {});
/// The same with as large numbers as f32 has: what autoencoders and text encoders need.
inline DType fastest_wide_product_dtype(const Device& device = {}) {
  return fastest_product_dtype(device) == DType::bf16 ? DType::bf16 : DType::f32;
}

/// "f32", "bf16", "int8", of a GPU also "f16", or "auto": fastest_product_dtype(). Throws UsageError on others.
DType product_dtype_from_name(std::string_view name, const Device& device = {});

/// "oneDNN 2.6.3, avx512_core_bf16"
std::string matmul_engine_name();

}  // namespace linnet::ops
