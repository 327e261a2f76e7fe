// CPU kernels of layer_norm_modulate; shapes are checked by the operation.
#pragma once

#include "core/tensor.h"

namespace linnet::ops::cpu {

void layer_norm_modulate_forward(const Tensor& x, const Tensor& shift, const Tensor& scale, float epsilon,
                                 Tensor& y, Tensor& statistics);
void layer_norm_modulate_backward(const Tensor& g, const Tensor& x, const Tensor& scale,
                                  const Tensor& statistics, Tensor& dx, Tensor& dshift, Tensor& dscale);

}  // namespace linnet::ops::cpu
