// How fresh parameters are drawn.
#include "nn/parameter.h"

#include <gtest/gtest.h>

#include <cmath>

namespace linnet::nn {
namespace {

struct Moments {
  double mean, deviation, largest;
};
Moments drawn(const Shape& shape, Init init) {
  Parameter parameter(shape, init);
  Generator generator(1);
  draw(parameter, generator);
  const auto values = parameter.value.values<float>();
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0, largest = 0;
  for (const float value : values) {
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
    largest = std::max(largest, std::abs(static_cast<double>(value)));
  }
  return {sum / n, std::sqrt(squares / n), largest};
}

// Of numbers that are even between −a and a: a/√3, and hardly less than a.
void expect_even(const Moments& found, double half_width) {
  EXPECT_NEAR(found.mean, 0, 0.03 * half_width);
  EXPECT_NEAR(found.deviation, half_width / std::sqrt(3.0), 0.02 * half_width);
  EXPECT_LE(found.largest, half_width);
  EXPECT_GT(found.largest, 0.99 * half_width);
}

TEST(Init, UniformIsEvenAroundZero) { expect_even(drawn({64, 64}, Init::uniform(0.2f)), 0.2); }

TEST(Init, NormalHasTheDeviationThatIsSaid) {
  const Moments found = drawn({64, 64}, Init::normal(0.02f));
  EXPECT_NEAR(found.mean, 0, 1e-3);
  EXPECT_NEAR(found.deviation, 0.02, 1e-3);
}

// √(6/(in + out)); of a convolution, as DiT draws its patch embedding, in is all that a patch holds.
TEST(Init, XavierIsOfAllThatARowTakesIn) {
  expect_even(drawn({40, 110}, Init::xavier_uniform()), 0.2);
  expect_even(drawn({102, 12, 2, 2}, Init::xavier_uniform()), 0.2);
}

// So that another layer beside it changes nothing.
TEST(Initialize, DependsOnTheNameAndTheSeedAlone) {
  struct Layers {
    Parameter first{{8, 8}, Init::normal(1)}, second{{8, 8}, Init::normal(1)};
    bool turned = false;
    void visit(const std::string& prefix, const ParameterVisitor& visitor) {
      if (turned) visitor(prefix + "second", second);
      visitor(prefix + "first", first);
      if (!turned) visitor(prefix + "second", second);
    }
  };
  const auto first_number = [](uint64_t seed, bool turned) {
    Layers layers;
    layers.turned = turned;
    initialize(layers, seed);
    return std::pair(layers.first.value.data<float>()[0], layers.second.value.data<float>()[0]);
  };
  EXPECT_EQ(first_number(1, false), first_number(1, true));
  EXPECT_NE(first_number(1, false).first, first_number(2, false).first);
  EXPECT_NE(first_number(1, false).first, first_number(1, false).second);
}

}  // namespace
}  // namespace linnet::nn
