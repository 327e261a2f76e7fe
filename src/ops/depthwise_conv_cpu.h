// CPU kernels of the depth-wise convolution over the token grid, with "same" padding. Its filters, one per
// channel of a head, are shared by all heads (LiT). Values lie as tokens, channels last, so a filter tap is a
// multiply-add of whole vectors of channels.
#pragma once

#include "core/tensor.h"

namespace linnet::ops::cpu {

struct TokenGrid {
  int64_t rows = 0, columns = 0;
};

/// out (batch, tokens, d) += conv(values) + bias, where values are the last d channels of kv; weight (c, 1, k,
/// k) and bias (c) f32 with c dividing d, k odd and at most 7.
void depthwise_conv_add(const Tensor& kv, const Tensor& weight, const Tensor& bias, TokenGrid grid,
                        Tensor& out);

/// Adds the gradient to the last d channels of dkv and sets dweight and dbias.
void depthwise_conv_backward(const Tensor& g, const Tensor& kv, const Tensor& weight, TokenGrid grid,
                             Tensor& dkv, Tensor& dweight, Tensor& dbias);

}  // namespace linnet::ops::cpu
