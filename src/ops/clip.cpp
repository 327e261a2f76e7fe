#include "ops/clip.h"

#include <cmath>

#include "ops/gpu_kernels.h"
#include "ops/reduce.h"

namespace linnet::ops {
namespace {

Clip clip_on_gpu(double limit, const std::vector<Tensor>& gradients, const Device& device) {
  std::vector<View> views;
  std::vector<int64_t> sizes;
  for (const Tensor& gradient : gradients) {
    views.push_back(gradient.view());
    sizes.push_back(gradient.numel());
  }
  Clip clip{Tensor::empty({1}, DType::f32, device), Tensor::empty({1}, DType::f32, device)};
  gpu_kernels().optimizer.clip_factor(views.data(), sizes.data(), static_cast<int64_t>(views.size()),
                                      static_cast<float>(limit), clip.norm.view(), clip.factor.view());
  return clip;
}

}  // namespace

Clip clip_to(double limit, const std::vector<Tensor>& gradients, const Device& device) {
  for (const Tensor& gradient : gradients)
    check(gradient.dtype() == DType::f32, "clip_to: a gradient is of {}, not f32", name_of(gradient.dtype()));
  if (device.is_gpu()) return clip_on_gpu(limit, gradients, device);
  double squares = 0;
  for (const Tensor& gradient : gradients) squares += sum_of_squares(gradient);
  const double norm = std::sqrt(squares), factor = limit > 0 && norm > limit ? limit / (norm + 1e-6) : 1.0;
  return {Tensor::full({1}, static_cast<float>(norm)), Tensor::full({1}, static_cast<float>(factor))};
}

}  // namespace linnet::ops
