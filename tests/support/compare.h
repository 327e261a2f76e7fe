// Comparing tensors in tests: ‖a − b‖ / ‖b‖.
#pragma once

#include <cmath>

#include "core/tensor.h"

namespace linnet::test {

inline double relative_error(const Tensor& actual, const Tensor& expected) {
  check(actual.numel() == expected.numel(), "shapes {} and {} differ", to_string(actual.shape()),
        to_string(expected.shape()));
  const Tensor a = actual.to(DType::f32), b = expected.to(DType::f32);
  double difference = 0, size = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double x = a.data<float>()[i], y = b.data<float>()[i];
    difference += (x - y) * (x - y);
    size += y * y;
  }
  return std::sqrt(difference / std::max(size, 1e-60));
}

}  // namespace linnet::test
