#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/reduce.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/reduce.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

// One block of columns at a time, so that the running sums stay in the first-level cache.
void sum_columns(const void* in, DType dtype, int64_t rows, int64_t stride, float* out, int64_t columns) {
  with_type(in, dtype, [&](auto* x) HWY_ATTR {
    for (int64_t j = 0; j < columns; ++j) out[j] = 0.0f;
    for (int64_t r = 0; r < rows; ++r)
      for_lanes(columns, [&](auto d, int64_t j) HWY_ATTR {
        store(hn::Add(load(d, out + j), load(d, x + r * stride + j)), d, out + j);
      });
  });
}

float squares(const float* x, int64_t n) {
  return sum_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    return hn::Mul(v, v);
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops {

HWY_EXPORT(sum_columns);
HWY_EXPORT(squares);

Tensor sum_rows(const Tensor& x) {
  check(x.shape().rank() == 2, "sum_rows wants a matrix, not shape {}", to_string(x.shape()));
  check_type("sum_rows", x);
  const int64_t rows = x.size(0), columns = x.size(1);
  if (rows == 0) return Tensor::zeros({columns}, DType::f32, x.device());
  Tensor y = Tensor::empty({columns}, DType::f32, x.device());
  if (x.on_gpu()) {
    gpu_kernels().reduce.sum_rows(x.view(), y.view(), rows, columns);
    return y;
  }
  constexpr int64_t block = 64;
  const auto* in = static_cast<const char*>(x.raw());
  float* out = y.mutable_data<float>();
  parallel_for((columns + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * block;
      HWY_DYNAMIC_DISPATCH(sum_columns)
      (in + static_cast<size_t>(first) * size_of(x.dtype()), x.dtype(), rows, columns, out + first,
       std::min(block, columns - first));
    }
  });
  return y;
}

double sum_of_squares(const Tensor& x) {
  constexpr int64_t block = 4096;
  const int64_t n = x.numel(), blocks = (n + block - 1) / block;
  std::vector<double> partial(static_cast<size_t>(blocks));
  const float* in = x.data<float>();
  parallel_for(blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      partial[static_cast<size_t>(b)] =
          static_cast<double>(HWY_DYNAMIC_DISPATCH(squares)(in + b * block, std::min(block, n - b * block)));
  });
  double total = 0;
  for (const double value : partial) total += value;
  return total;
}

bool all_finite(const Tensor& x) {
  const Tensor here = x.host();
  const std::span<const float> values = here.values<float>();
  std::atomic<bool> finite = true;
  parallel_for(here.numel(), 1 << 18, [&](int64_t begin, int64_t end) {
    const auto part = values.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    if (!std::ranges::all_of(part, [](float value) { return std::isfinite(value); })) finite = false;
  });
  return finite;
}

}  // namespace linnet::ops
#endif
