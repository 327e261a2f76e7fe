// The depth-wise convolution over the token grid on the GPU, with "same" padding; filters, one a channel of a
// head, are shared by all heads. What the CPU's is: depthwise_conv_cpu.h.
#pragma once

#include "cuda/kernels.h"

namespace linnet::cuda {

struct DepthwiseConv {
  int64_t batch, rows, columns, width, head_size, kernel;
  DType dtype;
};

/// Sets out = conv(values) + bias; all columns of conv.width, of conv.dtype; weight and bias f32.
void depthwise_conv(const DepthwiseConv& conv, const ops::ColumnView& values, View weight, View bias,
                    const ops::ColumnView& out);
/// Sets dvalues (of conv.dtype, as g) and dweight, dbias (f32).
void depthwise_conv_backward(const DepthwiseConv& conv, const ops::ColumnView& values, const ops::ColumnView& g,
                             View weight, const ops::ColumnView& dvalues, View dweight, View dbias);

/// The same by tensor cores (depthwise_conv_patches_cuda.cu), if they fit; all tensors' columns as 16-byte
/// packs. Taps are rounded to conv.dtype, and taken in the reverse order if `flipped`; no bias if null.
/// What is not finite spreads over up to 8×6 neighbouring results, as zeros times it are added, too; not over
/// 5×5.
bool patches_fit(const DepthwiseConv& conv);
void depthwise_conv_by_patches(const DepthwiseConv& conv, const ops::ColumnView& values, View weight, View bias,
                               bool flipped, const ops::ColumnView& out);
/// The gradients of taps likewise (depthwise_conv_taps_cuda.cu).
void depthwise_conv_gradients_by_patches(const DepthwiseConv& conv, const ops::ColumnView& values,
                                         const ops::ColumnView& g, View dweight, View dbias);

/// Sets dweight and dbias to sums of shares (parts, kernel² + 1, width), the last of taps being the bias.
void add_tap_shares(const DepthwiseConv& conv, const float* shares, int parts, View dweight, View dbias);

}  // namespace linnet::cuda
