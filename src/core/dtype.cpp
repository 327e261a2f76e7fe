#include "core/dtype.h"

#include <cmath>

namespace linnet {

float16::float16(float value) {
  const auto u = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // NaN
    bits = sign | 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // rounds beyond 65504
    bits = sign | 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal: the float adder rounds for us
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    bits = static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  } else {
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23);
    bits = static_cast<uint16_t>(sign | (rounded >> 13));
  }
}

float16::operator float() const {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  const uint32_t top = exponent == 31 ? 255u : exponent + 112u;
  return std::bit_cast<float>(sign | (top << 23) | (mantissa << 13));
}

}  // namespace linnet
