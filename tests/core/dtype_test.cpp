// The 16-bit formats: every value exactly, every rounding to nearest with ties to even.
#include "core/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

namespace linnet {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

// IEEE half precision by its definition.
double half_by_definition(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa ? std::nan("") : sign * infinity;
  return sign * (exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24));
}

// Rounding of |value| to a 16-bit format by its definition: the nearer neighbour, the even one in the middle.
// above(bits) is the format's value, with infinity replaced by what would follow the largest number.
template <class Value>
uint16_t nearest(double magnitude, uint16_t infinite_bits, Value above) {
  uint16_t low = 0, high = infinite_bits;
  while (high - low > 1) {
    const auto middle = static_cast<uint16_t>((low + high) / 2);
    (above(middle) <= magnitude ? low : high) = middle;
  }
  if (magnitude >= above(high)) return infinite_bits;
  const double down = magnitude - above(low), up = above(high) - magnitude;
  if (down != up) return down < up ? low : high;
  return low % 2 == 0 ? low : high;
}

uint16_t half_nearest(double magnitude) {
  return nearest(magnitude, 0x7c00, [](uint16_t b) { return b == 0x7c00 ? 65536.0 : half_by_definition(b); });
}

uint16_t brain_nearest(double magnitude) {
  return nearest(magnitude, 0x7f80, [](uint16_t b) {
    return b == 0x7f80 ? std::ldexp(1, 128) : static_cast<double>(from_bits(static_cast<uint32_t>(b) << 16));
  });
}

TEST(Float16, HasEveryValueOfItsDefinition) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    float16 half;
    half.bits = static_cast<uint16_t>(bits);
    const double expected = half_by_definition(half.bits), found = static_cast<float>(half);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(found)) << bits;
    } else {
      EXPECT_EQ(found, expected) << bits;
      EXPECT_EQ(std::signbit(found), bits >= 0x8000) << bits;
    }
  }
}

TEST(Float16, ComesBackFromFloatUnchanged) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    float16 half;
    half.bits = static_cast<uint16_t>(bits);
    const float value = static_cast<float>(half);
    if (!std::isnan(value)) {
      EXPECT_EQ(float16(value).bits, bits);
    }
  }
}

TEST(Float16, RoundsToNearestEvenBetweenAllNeighbours) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto low = static_cast<uint16_t>(bits);
    const double a = half_by_definition(low), b = low == 0x7bff ? 65536.0 : half_by_definition(low + 1u);
    const auto middle = static_cast<float>((a + b) / 2);  // exact: a float has 13 more bits
    const auto even = static_cast<uint16_t>(low % 2 == 0 ? low : low + 1);
    EXPECT_EQ(float16(middle).bits, even) << bits;
    EXPECT_EQ(float16(std::nextafter(middle, 0.0f)).bits, low) << bits;
    EXPECT_EQ(float16(std::nextafter(middle, infinity)).bits, low + 1) << bits;
    EXPECT_EQ(float16(-middle).bits, even | 0x8000) << bits;
  }
}

TEST(Float16, RoundsAnyFloatAsDefined) {
  std::mt19937 engine(1);
  for (int i = 0; i < 300'000; ++i) {
    const float value = from_bits(static_cast<uint32_t>(engine()));
    if (std::isnan(value)) continue;
    EXPECT_EQ(float16(value).bits & 0x7fff, half_nearest(std::abs(static_cast<double>(value)))) << value;
  }
}

TEST(Float16, KeepsInfinityAndNaNAndSigns) {
  EXPECT_EQ(float16(infinity).bits, 0x7c00);
  EXPECT_EQ(float16(-infinity).bits, 0xfc00);
  EXPECT_EQ(float16(-0.0f).bits, 0x8000);
  EXPECT_EQ(float16(1e-30f).bits, 0);
  EXPECT_EQ(float16(65519.0f).bits, 0x7bff);
  EXPECT_EQ(float16(65520.0f).bits, 0x7c00);
  for (const uint32_t nan : {0x7fc00000u, 0x7f800001u, 0xffffffffu})
    EXPECT_TRUE(std::isnan(static_cast<float>(float16(from_bits(nan))))) << nan;
}

TEST(BFloat16, ComesBackFromFloatUnchanged) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    bfloat16 brain;
    brain.bits = static_cast<uint16_t>(bits);
    const float value = static_cast<float>(brain);
    EXPECT_EQ(std::bit_cast<uint32_t>(value), bits << 16);
    if (!std::isnan(value)) {
      EXPECT_EQ(bfloat16(value).bits, bits);
    }
  }
}

TEST(BFloat16, RoundsToNearestEvenBetweenAllNeighbours) {
  for (uint32_t low = 0; low < 0x7f80; ++low) {
    const uint32_t middle = low << 16 | 0x8000;
    EXPECT_EQ(bfloat16(from_bits(middle)).bits, low % 2 == 0 ? low : low + 1) << low;
    EXPECT_EQ(bfloat16(from_bits(middle - 1)).bits, low) << low;
    EXPECT_EQ(bfloat16(from_bits(middle + 1)).bits, low + 1) << low;
  }
}

TEST(BFloat16, RoundsAnyFloatAsDefined) {
  std::mt19937 engine(2);
  for (int i = 0; i < 300'000; ++i) {
    const float value = from_bits(static_cast<uint32_t>(engine()));
    if (std::isnan(value)) continue;
    EXPECT_EQ(bfloat16(value).bits & 0x7fff, brain_nearest(std::abs(static_cast<double>(value)))) << value;
  }
}

TEST(BFloat16, KeepsInfinityAndNaNAndSigns) {
  EXPECT_EQ(bfloat16(infinity).bits, 0x7f80);
  EXPECT_EQ(bfloat16(-infinity).bits, 0xff80);
  EXPECT_EQ(bfloat16(-0.0f).bits, 0x8000);
  EXPECT_EQ(bfloat16(std::numeric_limits<float>::max()).bits, 0x7f80);
  EXPECT_EQ(bfloat16(from_bits(1)).bits, 0);
  // A NaN whose payload lies in the lower half only must not become an infinity.
  for (const uint32_t nan : {0x7fc00000u, 0x7f800001u, 0xff80ffffu, 0x7fffffffu, 0xffffffffu})
    EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(from_bits(nan))))) << nan;
}

TEST(DType, HasASizeAndAName) {
  EXPECT_EQ(size_of(DType::f64), 8u);
  EXPECT_EQ(size_of(DType::bf16), 2u);
  EXPECT_EQ(size_of(DType::u8), 1u);
  EXPECT_EQ(name_of(DType::f64), "f64");
  EXPECT_EQ(name_of(DType::i8), "i8");
  EXPECT_EQ(name_of(DType::u8), "u8");
}

}  // namespace
}  // namespace linnet
