// Matrix products, on the CPU by oneDNN, on a GPU by cuBLASLt. Operands are strided views, so that transposes
// cost nothing; what is made for a shape is kept. Not differentiable: operations build on it.
#pragma once

#include <memory>
#include <string_view>

#include "core/tensor.h"
#include "ops/matrix_view.h"

namespace linnet::ops {

/// The tensor seen as a matrix whose columns are its last dimension.
MatrixView as_matrix(const Tensor& tensor);

/// a·b (+ bias over columns) (then activation), or added to `into` when accumulate. a and b share a dtype (f32
/// or bf16; f16 on a GPU) and lie on the device of `into`; sums are f32; into is of their type or f32, or
/// rounded from f32. bias may be undefined, else of any float type and on any device.
struct MatmulOptions {
  Tensor bias = {};
  Activation activation = Activation::none;
  bool accumulate = false;
};
void matmul(const MatrixView& a, const MatrixView& b, Tensor& into, const MatmulOptions& options = {});

/// A weight (out, in) converted to a product type and laid out as its device likes it best, for repeated use.
class PackedWeight {
 public:
  PackedWeight() = default;
  PackedWeight(const Tensor& weight, DType dtype);
  bool defined() const { return state_ != nullptr; }
  DType dtype() const;
  const Device& device() const;
  int64_t in_features() const;
  int64_t out_features() const;
  /// Products that are kept ready, each for a number of rows and what is fused: at most 64, none on a GPU.
  size_t prepared() const;
  /// x (rows, in) · weightᵀ into (rows, out), on the weight's device.
  void apply(const MatrixView& x, Tensor& into, const MatmulOptions& options) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// into (out, in) f32 = gᵀ·x for dense bf16 g (rows, out) and x (rows, in): the gradient of a linear layer's
/// weight, by oneDNN's product made for it. On the CPU only: a GPU's is matmul().
void weight_gradient(const MatrixView& g, const MatrixView& x, Tensor& into);

/// True if the CPU multiplies bf16 at all, with or without instructions for it.
bool have_bf16_products();
/// Fastest product type that the device really has instructions for: bf16, else f32 on a CPU and f16 on a GPU.
DType fastest_product_dtype(const Device& device = {});
/// The same with numbers as large as f32 has, which autoencoders and text encoders need: bf16 or f32.
inline DType fastest_wide_product_dtype(const Device& device = {}) {
  return fastest_product_dtype(device) == DType::bf16 ? DType::bf16 : DType::f32;
}
/// Of those beside a model whose products are named so: f32 with "f32" and "tf32", else the fastest wide one.
inline DType wide_product_dtype_from_name(std::string_view name, const Device& device = {}) {
  return name == "f32" || name == "tf32" ? DType::f32 : fastest_wide_product_dtype(device);
}

/// "f32", "bf16", "int8", or "auto": fastest_product_dtype(); and of a GPU "f16", or "tf32", which is f32 with
/// set_tf32(true). Throws UsageError on others, and on bf16 where the CPU has no products of it.
DType product_dtype_from_name(std::string_view name, const Device& device = {});
/// The other way: "tf32" of a GPU's f32 if set_tf32(true).
std::string name_of_products(DType dtype, const Device& device = {});

/// Whether a GPU's products of f32 may round their operands to the 19 bits of TensorFloat-32, from here on, in
/// the whole process; they don't unless told so.
void set_tf32(bool allowed);
bool tf32_is_allowed();

/// "oneDNN 2.6.3, bf16 instructions", "cuBLASLt 13.0.2, NVIDIA H100"
std::string matmul_engine_name(const Device& device = {});

}  // namespace linnet::ops
