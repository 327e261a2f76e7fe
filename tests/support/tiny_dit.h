// The smallest DiT that has everything: for tests that need some model and not a certain one.
#pragma once

#include "models/dit.h"

namespace linnet::test {

inline DiTConfig tiny_dit() {
  DiTConfig config;
  config.input_size = 8;
  config.hidden_size = 16;
  config.depth = 1;
  config.num_heads = 2;
  config.num_classes = 3;
  return config;
}

}  // namespace linnet::test
