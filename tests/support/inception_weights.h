// Inception with the weights of tests/reference/make_inception_dumps.py: drawn from the parameters' names alike
// there and here, so that 24 million of them need not be kept.
#pragma once

#include <cmath>

#include "core/random.h"
#include "models/inception.h"

namespace linnet::test {

inline void draw_inception(Inception& model) {
  model.visit("", [](const std::string& name, nn::Parameter& parameter) {
    Generator generator(nn::hash_name(name) & 0x7fffffff);
    Tensor value = Tensor::empty(parameter.shape);
    const bool weight = name.ends_with("conv.weight") || name.ends_with("fc.weight");
    const auto fan_in = static_cast<double>(value.numel() / value.size(0));
    const auto scale = static_cast<float>(1.42 * std::sqrt(3 / fan_in));
    for (float& v : std::span(value.mutable_data<float>(), static_cast<size_t>(value.numel()))) {
      const float u = generator.uniform();
      if (weight)
        v = (2 * u - 1) * scale;
      else if (name.ends_with("bn.weight"))
        v = 0.8f + 0.4f * u;
      else
        v = name.ends_with("running_var") ? 0.5f + u : 0.4f * (u - 0.5f);
    }
    parameter.value = value;
  });
  nn::freeze(model);
}

}  // namespace linnet::test
