#include "io/colour.h"

#include <algorithm>
#include <cmath>

namespace linnet {
namespace {

float decode(float v) { return v <= 0.04045f ? v / 12.92f : std::pow((v + 0.055f) / 1.055f, 2.4f); }
float encode(float v) { return v <= 0.0031308f ? v * 12.92f : 1.055f * std::pow(v, 1.0f / 2.4f) - 0.055f; }
float cube(float v) { return v * v * v; }

}  // namespace

Lab to_oklab(const Rgb& srgb) {
  const float r = decode(srgb[0]), g = decode(srgb[1]), b = decode(srgb[2]);
  const float l = std::cbrt(0.4122214708f * r + 0.5363325363f * g + 0.0514459929f * b);
  const float m = std::cbrt(0.2119034982f * r + 0.6806995451f * g + 0.1073969566f * b);
  const float s = std::cbrt(0.0883024619f * r + 0.2817188376f * g + 0.6299787005f * b);
  return {0.2104542553f * l + 0.7936177850f * m - 0.0040720468f * s,
          1.9779984951f * l - 2.4285922050f * m + 0.4505937099f * s,
          0.0259040371f * l + 0.7827717662f * m - 0.8086757660f * s};
}

Rgb to_srgb(const Lab& lab) {
  const float l = cube(lab.lightness + 0.3963377774f * lab.a + 0.2158037573f * lab.b);
  const float m = cube(lab.lightness - 0.1055613458f * lab.a - 0.0638541728f * lab.b);
  const float s = cube(lab.lightness - 0.0894841775f * lab.a - 1.2914855480f * lab.b);
  const Rgb linear = {4.0767416621f * l - 3.3077115913f * m + 0.2309699292f * s,
                      -1.2684380046f * l + 2.6097574011f * m - 0.3413193965f * s,
                      -0.0041960863f * l - 0.7034186147f * m + 1.7076147010f * s};
  Rgb result{};
  for (size_t c = 0; c < 3; ++c) result[c] = encode(std::clamp(linear[c], 0.0f, 1.0f));
  return result;
}

float distance(const Lab& one, const Lab& other) {
  return std::hypot(one.lightness - other.lightness, one.a - other.a, one.b - other.b);
}

}  // namespace linnet
