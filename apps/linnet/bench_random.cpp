#include "bench_random.h"

#include <cmath>

#include "bench_device.h"
#include "core/parallel.h"

namespace linnet::app {

Tensor random_on_cpu(const Shape& shape, float scale) {
  Tensor result = Tensor::empty(shape);
  auto* values = result.mutable_data<float>();
  parallel_for(result.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint64_t bits = static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u;  // SplitMix64, one round
      bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
      values[i] = scale * (static_cast<float>((bits >> 32) & 0xffffffu) * 0x1p-23f - 1.0f);
    }
  });
  return result;
}

Tensor random_tensor(const Shape& shape, float scale, DType dtype) {
  return random_on_cpu(shape, scale).to(bench_device()).to(dtype);
}

void fill_random(nn::Parameter& parameter) {
  const int64_t fan_in =
      parameter.shape.rank() > 1 ? parameter.shape.numel() / parameter.shape[0] : parameter.shape[0];
  parameter.value = random_tensor(parameter.shape, 1.0f / std::sqrt(static_cast<float>(fan_in)));
}

}  // namespace linnet::app
