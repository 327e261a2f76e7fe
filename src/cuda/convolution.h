// Convolutions are a library's (convolution.cpp, and emulation/libraries.cpp on a CPU); what it lacks are
// kernels of ours (ops/picture_cuda.cu).
#pragma once

#include "ops/gpu_kernels.h"

namespace linnet::cuda {

/// PictureKernels::conv.
void convolve(const ops::GpuConv& conv, View x, View weight, View bias, View y);

/// x (n, height, width, in) with the convolution's zeros around it.
void pad_picture(const ops::GpuConv& conv, View x, View padded);
/// y = y + bias over the channels, then the larger of that and 0 if relu.
void add_bias(View bias, bool relu, View y, int64_t pixels, int64_t channels);

}  // namespace linnet::cuda
