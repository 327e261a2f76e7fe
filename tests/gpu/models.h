// Models for tests on the GPU.
#pragma once

#include "gpu/support.h"
#include "models/pixart.h"
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

inline PixArtConfig tiny_pixart() {
  PixArtConfig config;
  config.sample_size = 8, config.hidden_size = 24, config.depth = 2, config.num_heads = 2;
  config.num_cross_heads = 2, config.caption_channels = 16, config.caption_tokens = 6;
  return config;
}

}  // namespace linnet::test
