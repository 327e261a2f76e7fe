#include "ops/optimized.h"

#include "ops/gpu_kernels.h"

namespace linnet::ops {

void check_sizes(std::string_view operation, const Optimized& parameter) {
  const Tensor& value = parameter.value;
  check(!parameter.gradient.defined() || parameter.gradient.numel() == value.numel(),
        "{}: a gradient of shape {} for a parameter of shape {}", operation,
        to_string(parameter.gradient.shape()), to_string(value.shape()));
  for (const Tensor* state : {&parameter.mean, &parameter.square, &parameter.ema})
    check(!state->defined() || state->numel() == value.numel(),
          "{}: a state of shape {} for a parameter of shape {}", operation, to_string(state->shape()),
          to_string(value.shape()));
}

std::vector<GpuParameter> on_gpu(const std::vector<Optimized>& parameters) {
  std::vector<GpuParameter> result;
  for (const Optimized& p : parameters)
    result.push_back(
        {p.value.view(), p.gradient.view(), p.mean.view(), p.square.view(), p.ema.view(), p.value.numel()});
  return result;
}

}  // namespace linnet::ops
