#include "core/random.h"

#include <cmath>
#include <numbers>
#include <numeric>

namespace linnet {
namespace {

// Box-Muller on 16 uniforms: the first eight give radii, the last eight angles.
void normal_16(float* data) {
  for (int j = 0; j < 8; ++j) {
    const float radius = std::sqrt(-2.0f * std::log(1.0f - data[j]));
    const float angle = 2.0f * std::numbers::pi_v<float> * data[j + 8];
    data[j] = radius * std::cos(angle);
    data[j + 8] = radius * std::sin(angle);
  }
}

}  // namespace

double Generator::normal_scalar() {
  if (has_cached_) {
    has_cached_ = false;
    return cached_;
  }
  const double u1 = uniform_double(), u2 = uniform_double();
  const double radius = std::sqrt(-2.0 * std::log1p(-u2)), angle = 2.0 * std::numbers::pi * u1;
  cached_ = radius * std::sin(angle);
  has_cached_ = true;
  return radius * std::cos(angle);
}

void Generator::normal(std::span<float> out) {
  const size_t n = out.size();
  if (n < 16) {
    for (float& value : out) value = static_cast<float>(normal_scalar());
    return;
  }
  for (float& value : out) value = uniform();
  for (size_t i = 0; i + 16 <= n; i += 16) normal_16(out.data() + i);
  if (n % 16 != 0) {  // the last 16 are drawn afresh
    float* tail = out.data() + n - 16;
    for (int i = 0; i < 16; ++i) tail[i] = uniform();
    normal_16(tail);
  }
}

Tensor Generator::normal(const Shape& shape) {
  Tensor result = Tensor::empty(shape);
  normal({result.mutable_data<float>(), static_cast<size_t>(result.numel())});
  return result;
}

uint64_t mix(uint64_t a, uint64_t b) {
  auto finalise = [](uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  };
  return finalise(finalise(a + 0x9e3779b97f4a7c15u) ^ (b * 0xd1342543de82ef95u + 0x9e3779b97f4a7c15u));
}

std::vector<int64_t> permutation(int64_t n, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  Generator generator(seed);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator.below(i)]);
  return order;
}

}  // namespace linnet
