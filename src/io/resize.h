// Resampling with the arithmetic of Pillow (up to 12: 13 takes the passes in another order where a picture gets
// much lower), so that a picture prepared here is the picture that ADM's and DiT's Python prepares, grey level
// for grey level. Not for speed on large batches.
#pragma once

#include "io/image.h"

namespace linnet {

/// Pillow's Image.resize with BICUBIC (a = -0.5, widened when shrinking) and with BOX.
Image resize_bicubic(const Image& image, int64_t width, int64_t height);
Image resize_box(const Image& image, int64_t width, int64_t height);

/// The part of an image that begins at (left, top); must lie inside.
Image crop(const Image& image, int64_t left, int64_t top, int64_t width, int64_t height);

/// ADM's center_crop_arr: halve while the shorter side is at least twice the size, shrink or enlarge it to the
/// size, keep the middle square.
Image center_crop(const Image& image, int64_t size);

/// PixArt's: scaled so that it just covers width x height, and of that the middle.
Image cover_crop(const Image& image, int64_t width, int64_t height);

Image flip_horizontal(const Image& image);

}  // namespace linnet
