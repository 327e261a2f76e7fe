// Tensor: a row-major, always contiguous array that shares its storage when copied, and, when a gradient is
// wanted, a slot in which that gradient gathers. How gradients come about: core/tape.h. It lies on one device;
// only what lies on the CPU can be read and written here, and operations take care of the rest.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/gpu.h"
#include "core/shape.h"

namespace linnet {

class Tensor;

/// Where the gradient of one tensor gathers while a tape is played backward.
struct GradSlot {
  std::unique_ptr<Tensor> value;  ///< null until the first contribution
};

class Tensor {
 public:
  /// No tensor at all: defined() is false. Stands for "no bias" and the like.
  Tensor() = default;

  static Tensor empty(const Shape& shape, DType dtype = DType::f32, const Device& device = {});
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, const Device& device = {});
  static Tensor full(const Shape& shape, float value, const Device& device = {});
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape);
  template <class T>
  static Tensor from(const std::vector<T>& values) {
    return from(std::span<const T>(values), {static_cast<int64_t>(values.size())});
  }
  /// Memory owned by somebody else (a mapped file), read-only; owner is kept alive as long as any view.
  static Tensor borrow(const void* data, const Shape& shape, DType dtype, std::shared_ptr<const void> owner);

  bool defined() const { return data_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t size(int dimension) const { return shape_[dimension]; }
  int64_t numel() const { return shape_.numel(); }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  const Device& device() const { return device_; }
  bool on_gpu() const { return device_.is_gpu(); }
  bool read_only() const { return read_only_; }
  /// True if another tensor sees the same memory.
  bool shares_memory() const { return data_.use_count() > 1; }

  /// Throws Error when the memory is not the CPU's.
  const void* raw() const {
    if (on_gpu()) not_here();
    return data_.get();
  }
  /// Throws Error when the memory is read-only, or not the CPU's.
  void* mutable_raw();
  /// Where the memory lies, on whichever device: for what hands it on to kernels of that device.
  const void* address() const { return data_.get(); }
  /// For kernels of the GPU; null of an undefined tensor. Throws Error when the memory is not the GPU's.
  View view() const;
  /// Throws Error when T is not the element type.
  template <class T>
  const T* data() const {
    require(DTypeOf<T>::value);
    return static_cast<const T*>(raw());
  }
  template <class T>
  T* mutable_data() {
    require(DTypeOf<T>::value);
    return static_cast<T*>(mutable_raw());
  }
  /// Of a tensor that outlives the span.
  template <class T>
  std::span<const T> values() const&& = delete;
  template <class T>
  std::span<const T> values() const& {
    return {data<T>(), static_cast<size_t>(numel())};
  }
  /// The only element of a one-element f32 tensor; waits for it if it is on the GPU.
  float item() const;

  /// The same memory (and gradient slot: a reshape's gradient is its source's) in another shape.
  Tensor reshape(const Shape& shape) const;
  /// Rows begin..end of the first dimension, same memory; carries no gradient.
  Tensor rows(int64_t begin, int64_t end) const;
  /// A copy with memory of its own, without gradient.
  Tensor clone() const;
  /// Converted between floating-point types (or the same tensor if already of that type); no gradient. For the
  /// differentiable cast see ops/cast.h.
  Tensor to(DType dtype) const;
  /// The same values on another device, or the same tensor if already there. It is the same tensor to
  /// gradients, too: they go to this one's slot, on whichever device they arise.
  Tensor to(const Device& device) const;
  /// On the CPU; waits for them.
  Tensor host() const { return to(Device{}); }
  /// The same values as a tensor that takes no part in gradients.
  Tensor detach() const;

  bool requires_grad() const { return grad_ != nullptr; }
  /// Makes this a leaf whose gradient is wanted (or no longer wanted).
  void set_requires_grad(bool wanted);
  const std::shared_ptr<GradSlot>& grad_slot() const { return grad_; }
  /// The gradient gathered so far, in this tensor's shape; undefined if there is none.
  Tensor grad() const;
  void clear_grad();

 private:
  void require(DType wanted) const;
  [[noreturn]] static void not_here();

  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_;
  bool read_only_ = false;
  std::shared_ptr<void> data_;
  std::shared_ptr<GradSlot> grad_;
};

template <class T>
Tensor Tensor::from(std::span<const T> values, const Shape& shape) {
  check(static_cast<int64_t>(values.size()) == shape.numel(), "{} values do not fill a tensor of shape {}",
        values.size(), to_string(shape));
  Tensor result = empty(shape, DTypeOf<T>::value);
  std::copy(values.begin(), values.end(), result.mutable_data<T>());
  return result;
}

}  // namespace linnet
