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

/// The same that paints pixels, 16 x 16.
inline DiTConfig tiny_dit_of_pixels() {
  DiTConfig config = tiny_dit();
  config.input_size = 16;
  config.patch_size = 4;
  config.in_channels = 3;
  config.hidden_size = 32;
  return config;
}

}  // namespace linnet::test
