#include "ops/muon.h"

#include <cmath>

#include "ops/arrange.h"
#include "ops/cast.h"
#include "ops/matmul.h"
#include "ops/reduce.h"

namespace linnet::ops {
namespace {

// y = a·x + b·x³ + c·x⁵ of every singular value: steep at 0, and after five turns near 1 wherever it began.
constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;
constexpr int turns = 5;
constexpr float least_norm = 1e-7f;

Tensor product(const MatrixView& x, const MatrixView& y, DType dtype) {
  Tensor result = Tensor::empty({x.rows, y.columns}, dtype);
  matmul(x, y, result);
  return result;
}

// a·1 + b·gram + c·gram²
Tensor polynomial(const Tensor& gram) {
  const DType products = gram.dtype();
  Tensor result = product(as_matrix(gram), as_matrix(gram), DType::f32);
  const Tensor linear = cast(gram, DType::f32);
  const int64_t n = result.numel(), rows = gram.size(0);
  const float* from = linear.data<float>();
  float* to = result.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) to[i] = b * from[i] + c * to[i];
  for (int64_t i = 0; i < rows; ++i) to[i * rows + i] += a;
  return cast(result, products);
}

}  // namespace

Tensor orthogonalized(const Tensor& matrix, DType products) {
  check(matrix.defined() && matrix.shape().rank() == 2 && matrix.dtype() == DType::f32,
        "orthogonalized: it takes a matrix in f32");
  const bool tall = matrix.size(0) > matrix.size(1);
  Tensor x = tall ? transpose(matrix) : matrix.clone();
  const float scale = 1.0f / std::max(static_cast<float>(std::sqrt(sum_of_squares(x))), least_norm);
  for (float& value : std::span(x.mutable_data<float>(), static_cast<size_t>(x.numel()))) value *= scale;
  x = cast(x, products);
  for (int turn = 0; turn < turns; ++turn) {
    const Tensor gram = product(as_matrix(x), as_matrix(x).transposed(), products);
    x = product(as_matrix(polynomial(gram)), as_matrix(x), products);
  }
  x = cast(x, DType::f32);
  return tall ? transpose(x) : x;
}

void muon_step(const MuonStep& s, Tensor& value, const Tensor& gradient, Tensor& mean, Tensor& ema,
               DType products) {
  check(value.shape().rank() == 2 && mean.shape() == value.shape() && ema.numel() == value.numel() &&
            (!gradient.defined() || gradient.numel() == value.numel()),
        "muon_step: momentum, average and gradient are not of the shape of the matrix, {}",
        to_string(value.shape()));
  const int64_t n = value.numel();
  Tensor ahead = Tensor::empty(value.shape());  // Nesterov's
  const float* g = gradient.defined() ? gradient.data<float>() : nullptr;
  float *m = mean.mutable_data<float>(), *u = ahead.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) {
    const float slope = g ? s.gradient_scale * g[i] : 0.0f;
    m[i] = s.momentum * m[i] + slope;
    u[i] = slope + s.momentum * m[i];
  }
  const Tensor update = orthogonalized(ahead, products);
  const auto longest = static_cast<float>(std::max(value.size(0), value.size(1)));
  const float step = 0.2f * std::sqrt(longest) * s.lr, kept = 1.0f - s.lr * s.weight_decay;
  const float* o = update.data<float>();
  float *p = value.mutable_data<float>(), *average = ema.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) {
    p[i] = kept * p[i] - step * o[i];
    average[i] = s.ema_decay * average[i] + (1.0f - s.ema_decay) * p[i];
  }
}

}  // namespace linnet::ops
