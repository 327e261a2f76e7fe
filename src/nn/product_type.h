// The type of a transformer's large products, as a setting of the whole model: f32, bf16, f16 on a GPU, or, for
// inference, i8, which rounds the blocks' matrices to 8 bits (others give them back as f32). Embeddings, final
// layers and all reductions stay f32.
#pragma once

#include <string_view>

#include "nn/parameter.h"
#include "ops/matmul.h"

namespace linnet::nn {

/// Makes the blocks' matrices what products of that type want. Throws Error on other types.
template <class Model>
void set_product_type(Model& model, DType dtype) {
  check(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::i8,
        "products are in f32, bf16, f16 or i8, not {}", name_of(dtype));
  model.visit("", [dtype](const std::string&, Parameter& parameter) {
    if (!parameter.block_matrix || !parameter.value.defined()) return;
    dtype == DType::i8 ? quantize(parameter) : dequantize(parameter);
  });
}

/// What goes into the blocks' products, and between them.
inline DType hidden_type(DType product, const Device& device = {}) {
  return product == DType::i8 ? ops::fastest_product_dtype(device) : product;
}

/// The type that a name means (ops::product_dtype_from_name): "auto" is i8 if the weights were stored so.
inline DType product_type_from_name(std::string_view name, bool stored_in_8_bits, const Device& device = {}) {
  return name == "auto" && stored_in_8_bits ? DType::i8 : ops::product_dtype_from_name(name, device);
}

}  // namespace linnet::nn
