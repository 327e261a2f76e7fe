#include "core/tensor.h"

#include <cstring>

#include "core/memory.h"
#include "core/parallel.h"

namespace linnet {

Tensor Tensor::empty(const Shape& shape, DType dtype, const Device& device) {
  Tensor result;
  result.shape_ = shape;
  result.dtype_ = dtype;
  result.device_ = device;
  result.data_ = allocate_on(device, result.bytes());
  return result;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, const Device& device) {
  Tensor result = empty(shape, dtype, device);
  if (result.on_gpu())
    gpu().clear(result.data_.get(), result.bytes());
  else
    std::memset(result.mutable_raw(), 0, result.bytes());
  return result;
}

Tensor Tensor::full(const Shape& shape, float value, const Device& device) {
  Tensor result = empty(shape, DType::f32, device);
  if (result.on_gpu())
    gpu().fill(result.view(), value, result.numel());
  else
    std::fill_n(result.mutable_data<float>(), result.numel(), value);
  return result;
}

Tensor Tensor::borrow(const void* data, const Shape& shape, DType dtype, std::shared_ptr<const void> owner) {
  Tensor result;
  result.shape_ = shape;
  result.dtype_ = dtype;
  result.read_only_ = true;
  result.data_ = std::shared_ptr<void>(const_cast<void*>(data), [owner = std::move(owner)](void*) {});
  return result;
}

void Tensor::not_here() { fail("a tensor on the GPU was to be read on the CPU"); }

View Tensor::view() const {
  if (!defined()) return {};
  check(on_gpu(), "a tensor on the CPU was given to the GPU");
  return {data_.get(), dtype_};
}

void* Tensor::mutable_raw() {
  if (on_gpu()) not_here();
  check(!read_only_, "attempt to write to read-only memory (a tensor mapped from a file)");
  return data_.get();
}

float Tensor::item() const {
  check(numel() == 1, "item() wants one element, the tensor has shape {}", to_string(shape_));
  return *host().data<float>();
}

Tensor Tensor::reshape(const Shape& shape) const {
  check(shape.numel() == numel(), "cannot see a tensor of shape {} as {}", to_string(shape_), to_string(shape));
  Tensor result = *this;
  result.shape_ = shape;
  return result;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  check(shape_.rank() > 0 && 0 <= begin && begin <= end && end <= shape_[0], "no rows {} to {} in shape {}",
        begin, end, to_string(shape_));
  std::vector<int64_t> extents(shape_.begin(), shape_.end());
  extents[0] = end - begin;
  Tensor result = *this;
  result.shape_ = Shape(extents);
  const size_t row_bytes = shape_[0] == 0 ? 0 : bytes() / static_cast<size_t>(shape_[0]);
  result.data_ = {data_, static_cast<char*>(data_.get()) + static_cast<size_t>(begin) * row_bytes};
  result.grad_ = nullptr;
  return result;
}

Tensor Tensor::clone() const {
  Tensor result = empty(shape_, dtype_, device_);
  if (on_gpu())
    gpu().copy(result.data_.get(), data_.get(), bytes());
  else
    std::memcpy(result.mutable_raw(), raw(), bytes());
  return result;
}

Tensor Tensor::detach() const {
  Tensor result = *this;
  result.grad_ = nullptr;
  return result;
}

namespace {

template <class To, class From>
void convert(const Tensor& from, Tensor& to) {
  const From* in = from.data<From>();
  To* out = to.mutable_data<To>();
  parallel_for(from.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<To>(static_cast<float>(in[i]));
  });
}

template <class From>
Tensor convert_from(const Tensor& from, DType dtype) {
  Tensor result = Tensor::empty(from.shape(), dtype);
  switch (dtype) {
    case DType::f32: convert<float, From>(from, result); break;
    case DType::f16: convert<float16, From>(from, result); break;
    case DType::bf16: convert<bfloat16, From>(from, result); break;
    default: fail("cannot convert {} to {}", name_of(from.dtype()), name_of(dtype));
  }
  return result;
}

}  // namespace

Tensor Tensor::to(const Device& device) const {
  if (!defined() || device == device_) return *this;
  Tensor result = empty(shape_, dtype_, device);
  if (on_gpu())
    gpu().download(result.data_.get(), data_.get(), bytes());
  else
    gpu().upload(result.data_.get(), data_.get(), bytes());
  result.grad_ = grad_;
  return result;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  if (on_gpu()) {
    Tensor result = empty(shape_, dtype, device_);
    gpu().convert(view(), result.view(), numel());
    return result;
  }
  switch (dtype_) {
    case DType::f64: return convert_from<double>(*this, dtype);
    case DType::f32: return convert_from<float>(*this, dtype);
    case DType::f16: return convert_from<float16>(*this, dtype);
    case DType::bf16: return convert_from<bfloat16>(*this, dtype);
    default: fail("cannot convert {} to {}", name_of(dtype_), name_of(dtype));
  }
}

void Tensor::set_requires_grad(bool wanted) { grad_ = wanted ? std::make_shared<GradSlot>() : nullptr; }

Tensor Tensor::grad() const { return grad_ && grad_->value ? grad_->value->reshape(shape_) : Tensor(); }

void Tensor::clear_grad() {
  if (grad_) grad_->value.reset();
}

void Tensor::require(DType wanted) const {
  check(defined(), "a tensor is missing");
  check(dtype_ == wanted, "a tensor of {} was expected, this one is {}", name_of(wanted), name_of(dtype_));
}

}  // namespace linnet
