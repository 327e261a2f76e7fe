// adaLN (DiT, arXiv 2212.09748, section 3.2): the conditioning shifts and scales what goes into a branch of a
// block, and gates what comes out of it.
#pragma once

#include "core/tensor.h"
#include "ops/arrange.h"

namespace linnet::nn {

struct Modulation {
  Tensor shift, scale, gate;  ///< (batch, width) f32
};

struct BlockModulation {
  Modulation mixer, mlp;
};

/// Of (batch, 6·width): shift, scale and gate of the mixer, then of the MLP.
inline BlockModulation block_modulation(const Tensor& columns) {
  const std::vector<Tensor> m = ops::chunk(columns, 6);
  return {{m[0], m[1], m[2]}, {m[3], m[4], m[5]}};
}

}  // namespace linnet::nn
