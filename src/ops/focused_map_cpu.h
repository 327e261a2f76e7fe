// CPU kernels of focused_map; shapes are checked by the operation. positions and dpositions may be undefined.
#pragma once

#include "ops/focused_map.h"

namespace linnet::ops::cpu {

void focused_map_forward(const Tensor& x, const Tensor& scale, const Tensor& positions,
                         FocusedActivation activation, Tensor& out);
void focused_map_backward(const Tensor& g, const Tensor& x, const Tensor& scale, const Tensor& positions,
                          FocusedActivation activation, Tensor& dx, Tensor& dscale, Tensor& dpositions);

}  // namespace linnet::ops::cpu
