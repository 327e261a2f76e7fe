// The address of an element, for kernels that take untyped memory.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

inline const void* element(const Tensor& tensor, int64_t index) {
  return static_cast<const char*>(tensor.raw()) + static_cast<size_t>(index) * size_of(tensor.dtype());
}

inline void* element(Tensor& tensor, int64_t index) {
  return static_cast<char*>(tensor.mutable_raw()) + static_cast<size_t>(index) * size_of(tensor.dtype());
}

}  // namespace linnet::ops
