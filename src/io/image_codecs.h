// What image.cpp and the two decoders share. Not for use elsewhere.
#pragma once

#include <cstdio>
#include <string>

#include "core/error.h"
#include "io/image.h"

namespace linnet {

/// Decoders of an open file; name is for error sentences.
Image read_png(std::FILE* file, const std::string& name);
Image read_jpeg(std::FILE* file, const std::string& name);

/// An empty picture of that size with its memory; throws Error when it is beyond the limits, or when the file
/// is too small to hold that many pixels even at the format's best compression (so that a header of a few bytes
/// cannot ask for gigabytes).
Image sized_image(int64_t width, int64_t height, std::FILE* file, int64_t most_pixels_a_byte,
                  const std::string& name);

}  // namespace linnet
