// A matrix somewhere in memory, for products.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace linnet::ops {

/// What follows a product in the same pass.
enum class Activation : uint8_t { none, gelu_tanh };

/// Strides in elements.
struct MatrixView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0, columns = 0;
  int64_t row_stride = 0, column_stride = 1;

  MatrixView transposed() const { return {data, dtype, columns, rows, column_stride, row_stride}; }
};

}  // namespace linnet::ops
