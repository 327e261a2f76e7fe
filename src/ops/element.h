// For kernels that take untyped memory: the address of an element, columns of a tensor, and the types that they
// know.
#pragma once

#include <string_view>

#include "core/tensor.h"

namespace linnet::ops {

inline const void* element(const Tensor& tensor, int64_t index) {
  return static_cast<const char*>(tensor.raw()) + static_cast<size_t>(index) * size_of(tensor.dtype());
}

inline void* element(Tensor& tensor, int64_t index) {
  return static_cast<char*>(tensor.mutable_raw()) + static_cast<size_t>(index) * size_of(tensor.dtype());
}

/// Columns of a tensor from `first` on; how many is for the kernel to know.
struct Columns {
  Tensor tensor;
  int64_t first = 0;
};

/// Kernels know f32 and bf16 only, and those of the GPU f16; any other type is refused here, before they read
/// or write it as f32.
inline void check_type(std::string_view operation, DType dtype, const Device& device = {}) {
  if (device.is_gpu() && dtype == DType::f16) return;
  check(dtype == DType::f32 || dtype == DType::bf16, "{} works in f32 or bf16, not {}", operation,
        name_of(dtype));
}

inline void check_type(std::string_view operation, const Tensor& tensor) {
  check(tensor.defined(), "{}: a tensor is missing", operation);
  check_type(operation, tensor.dtype(), tensor.device());
}

/// Where an operation on both works: the GPU if either lies there.
inline Device device_of(const Tensor& a, const Tensor& b) { return a.on_gpu() ? a.device() : b.device(); }

/// For kernels of the GPU that know f32 only, which do not look.
inline View f32_view(const Tensor& tensor) {
  check(tensor.dtype() == DType::f32, "a tensor of f32 was expected, this one is {}", name_of(tensor.dtype()));
  return tensor.view();
}

}  // namespace linnet::ops
