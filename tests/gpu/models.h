// Models for tests on the GPU.
#pragma once

#include "gpu/support.h"
#include "nn/parameter.h"

namespace linnet::test {

/// Drawn parameters, with nothing left at zero, as fresh models have their last layers.
template <class Module>
void draw_all(Module& module) {
  nn::initialize(module, 1);
  uint64_t seed = 0;
  for (auto& [name, parameter] : nn::learned_parameters(module))
    if (parameter->init.kind == nn::Init::Kind::zero)
      parameter->value = ops::test::random(parameter->shape, ++seed, DType::f32, 0.1f);
}

}  // namespace linnet::test
