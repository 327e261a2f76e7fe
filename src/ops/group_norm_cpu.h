// CPU kernels behind ops/group_norm.h.
#pragma once

#include "core/tensor.h"

namespace linnet::ops::cpu {

/// x (pixels, channels): sums (2, channels) of x − pivot and of its square, where pivot (channels) is near x.
void add_channel_sums(const void* x, DType dtype, const float* pivot, int64_t pixels, int64_t channels,
                      double* sums);

/// y = gain·x + shift, then SiLU; x and y (pixels, channels) may be the same.
void scale_channels(const void* x, void* y, DType dtype, const float* gain, const float* shift, bool silu,
                    int64_t pixels, int64_t channels);

}  // namespace linnet::ops::cpu
