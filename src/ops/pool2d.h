// Pooling of pictures (n, height, width, channels), on the CPU by oneDNN, and what networks of many branches
// need besides. f32. Not differentiable.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace linnet::ops {

enum class Pooling : uint8_t { largest, mean };

/// A square window of `size` pixels, moved by `stride`; the picture is surrounded by `padding` pixels that do
/// not count, neither for the largest nor for the mean.
Tensor pool2d(const Tensor& x, Pooling pooling, int64_t size, int64_t stride, int64_t padding);

/// Pictures of one size, their channels behind each other.
Tensor join_channels(const std::vector<Tensor>& parts);

/// Bilinear interpolation between the upper left corners of pixels, without smoothing when shrinking: that of
/// TensorFlow 1.
Tensor resize_bilinear(const Tensor& x, int64_t height, int64_t width);

}  // namespace linnet::ops
