// Values for benchmarks: cheap, the same on every machine, and of a size that keeps a deep model's numbers
// normal (zeros, denormals and infinities have speeds of their own).
#pragma once

#include "core/tensor.h"
#include "nn/parameter.h"

namespace linnet::app {

/// Uniform in ±scale, on the CPU.
Tensor random_on_cpu(const Shape& shape, float scale);
/// The same on the device that is measured.
Tensor random_tensor(const Shape& shape, float scale, DType dtype = DType::f32);

/// Gives a parameter values of about ±1/√fan_in, far faster than drawing them as training does.
void fill_random(nn::Parameter& parameter);

/// Every learned parameter of a module.
template <class Module>
void fill_module(Module& module) {
  module.visit("", [](const std::string&, nn::Parameter& parameter) {
    if (parameter.learned()) fill_random(parameter);
  });
}

}  // namespace linnet::app
