// Colours as numbers: sRGB in [0, 1], and OKLab, in which equal steps look equally large (Björn Ottosson, "A
// perceptual color space for image processing", 2020).
#pragma once

#include <array>

namespace linnet {

using Rgb = std::array<float, 3>;

struct Lab {
  float lightness = 0, a = 0, b = 0;
};

Lab to_oklab(const Rgb& srgb);
/// Colours that no screen shows are clamped channel by channel.
Rgb to_srgb(const Lab& lab);
float distance(const Lab& one, const Lab& other);

}  // namespace linnet
