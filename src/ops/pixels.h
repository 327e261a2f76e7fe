// Between the two layouts of pictures, channel by channel (n, channels, height, width) as in files and models'
// interfaces, and pixel by pixel (n, height, width, channels) as convolutions like them; and what only moves
// pixels. Not differentiable.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// (n, c, h, w) of any float type → (n, h, w, c) f32 or bf16 (or f16 on a GPU).
Tensor to_pixels(const Tensor& planes, DType dtype);
/// (n, h, w, c) f32 or bf16 (or f16 on a GPU) → (n, c, h, w) f32.
Tensor to_planes(const Tensor& pixels);

/// Writes part (n, h, w, c) to every second pixel of picture (n, 2h, 2w, c), from row and column 0 or 1 on.
void interleave(const Tensor& part, int64_t row, int64_t column, Tensor& picture);

/// Rows begin..end of every picture, (n, end − begin, w, c): the same memory where they lie together, else a
/// copy.
Tensor crop_rows(const Tensor& picture, int64_t begin, int64_t end);

/// Writes `from` (1, h, w, c) to rows first..first + h of the one picture `to`.
void copy_rows(const Tensor& from, Tensor to, int64_t first);

}  // namespace linnet::ops
