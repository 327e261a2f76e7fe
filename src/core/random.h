// Random numbers. Generator follows PyTorch's CPU generator (mt19937, its uniform() and normal() orders), so a
// seed gives the noise that people know; `mix` makes seeds from counters, so that a training step's randomness
// is a function of (seed, step) and resuming needs no generator state. Of a seed 32 bits count: of a million
// steps some hundred pairs have the same numbers, for other pictures.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace linnet {

class Generator {
 public:
  explicit Generator(uint64_t seed) : engine_(static_cast<uint32_t>(seed)) {}

  uint32_t random32() { return engine_(); }
  uint64_t random64() {
    const uint64_t high = engine_(), low = engine_();
    return (high << 32) | low;
  }
  /// [0, 1), 24 bits, as torch.rand in f32.
  float uniform() { return static_cast<float>(engine_() & 0xffffffu) * 0x1p-24f; }
  /// [0, 1), 53 bits, as torch.rand in f64.
  double uniform_double() { return static_cast<double>(random64() & ((uint64_t{1} << 53) - 1)) * 0x1p-53; }
  /// An integer below bound.
  uint64_t below(uint64_t bound) { return random64() % bound; }

  /// Fills with standard normal numbers in torch.randn's order.
  void normal(std::span<float> out);
  /// torch.randn(shape)
  Tensor normal(const Shape& shape);

 private:
  double normal_scalar();

  std::mt19937 engine_;
  double cached_ = 0;
  bool has_cached_ = false;
};

/// A well-mixed 64-bit function of two numbers (SplitMix64's finaliser, twice).
uint64_t mix(uint64_t a, uint64_t b);

/// A permutation of 0..n-1.
std::vector<int64_t> permutation(int64_t n, uint64_t seed);

}  // namespace linnet
