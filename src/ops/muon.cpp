#include "ops/muon.h"

#include <cmath>

#include "ops/arrange.h"
#include "ops/matmul.h"
#include "ops/reduce.h"

namespace linnet::ops {
namespace {

// y = a·x + b·x³ + c·x⁵ of every singular value: steep at 0, and after five turns near 1 wherever it began.
constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;
constexpr int turns = 5;
constexpr float least_norm = 1e-7f;

// left·x + right·y
Tensor mixed(float left, const Tensor& x, float right, const Tensor& y) {
  Tensor result = Tensor::empty(x.shape());
  const float *from = x.data<float>(), *other = y.data<float>();
  float* to = result.mutable_data<float>();
  for (int64_t i = 0; i < x.numel(); ++i) to[i] = left * from[i] + right * other[i];
  return result;
}

Tensor product(const MatrixView& x, const MatrixView& y) {
  Tensor result = Tensor::empty({x.rows, y.columns});
  matmul(x, y, result);
  return result;
}

}  // namespace

Tensor orthogonalized(const Tensor& matrix, DType products) {
  check(matrix.defined() && matrix.shape().rank() == 2 && matrix.dtype() == DType::f32,
        "orthogonalized: it takes a matrix in f32");
  const bool tall = matrix.size(0) > matrix.size(1);
  const Tensor wide = tall ? transpose(matrix) : matrix;
  const auto norm = static_cast<float>(std::sqrt(sum_of_squares(wide)));
  Tensor x = wide.clone();
  for (float& value : std::span(x.mutable_data<float>(), static_cast<size_t>(x.numel())))
    value /= std::max(norm, least_norm);
  for (int turn = 0; turn < turns; ++turn) {
    const Tensor rounded = x.to(products);
    const Tensor gram = product(as_matrix(rounded), as_matrix(rounded).transposed());
    const Tensor gram_rounded = gram.to(products);
    const Tensor polynomial = mixed(b, gram, c, product(as_matrix(gram_rounded), as_matrix(gram_rounded)));
    const Tensor polynomial_rounded = polynomial.to(products);
    x = mixed(a, x, 1, product(as_matrix(polynomial_rounded), as_matrix(rounded)));
  }
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
