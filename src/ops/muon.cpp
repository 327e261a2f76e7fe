#include "ops/muon.h"

#include <cmath>

#include "ops/arrange.h"
#include "ops/cast.h"
#include "ops/gpu_kernels.h"
#include "ops/matmul.h"
#include "ops/reduce.h"

namespace linnet::ops {
namespace {

// y = a·x + b·x³ + c·x⁵ of every singular value: steep at 0, and after five turns near 1 wherever it began.
constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;
constexpr int turns = 5;
constexpr float least_norm = 1e-7f;

Tensor product(const MatrixView& x, const MatrixView& y, DType dtype, const Device& device) {
  Tensor result = Tensor::empty({x.rows, y.columns}, dtype, device);
  matmul(x, y, result);
  return result;
}

// a·1 + b·gram + c·gram²
Tensor polynomial(const Tensor& gram) {
  const DType products = gram.dtype();
  Tensor result = product(as_matrix(gram), as_matrix(gram), DType::f32, gram.device());
  const int64_t n = result.numel(), rows = gram.size(0);
  if (gram.on_gpu()) {
    gpu_kernels().optimizer.muon_polynomial(gram.view(), result.view(), a, b, c, rows);
    return cast(result, products);
  }
  const Tensor linear = cast(gram, DType::f32);
  const float* from = linear.data<float>();
  float* to = result.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) to[i] = b * from[i] + c * to[i];
  for (int64_t i = 0; i < rows; ++i) to[i * rows + i] += a;
  return cast(result, products);
}

// x over its norm, in the products' type.
Tensor normalized(const Tensor& x, DType products) {
  if (x.on_gpu()) {
    Tensor squares = Tensor::zeros({1}, DType::f32, x.device()),
           y = Tensor::empty(x.shape(), products, x.device());
    gpu_kernels().reduce.add_squares(x.view(), squares.view(), x.numel());
    gpu_kernels().optimizer.divide_by_norm(x.view(), squares.view(), least_norm, y.view(), x.numel());
    return y;
  }
  Tensor y = x.clone();
  const float scale = 1.0f / std::max(static_cast<float>(std::sqrt(sum_of_squares(x))), least_norm);
  for (float& value : std::span(y.mutable_data<float>(), static_cast<size_t>(y.numel()))) value *= scale;
  return cast(y, products);
}

// The momentum, and where it leads together with this step's gradient (Nesterov's).
Tensor moved_ahead(const MuonStep& s, const Tensor& clip, const Tensor& gradient, Tensor& mean) {
  Tensor ahead = Tensor::empty(mean.shape(), DType::f32, mean.device());
  const int64_t n = mean.numel();
  if (mean.on_gpu()) {
    gpu_kernels().optimizer.muon_ahead({.momentum = s.momentum}, clip.view(), gradient.view(), mean.view(),
                                       ahead.view(), n);
    return ahead;
  }
  const float scale = clip.item();
  const float* g = gradient.defined() ? gradient.data<float>() : nullptr;
  float *m = mean.mutable_data<float>(), *u = ahead.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) {
    const float slope = g ? scale * g[i] : 0.0f;
    m[i] = s.momentum * m[i] + slope;
    u[i] = slope + s.momentum * m[i];
  }
  return ahead;
}

// value = kept·value − step·update, and its average.
void move(float kept, float step, float ema_decay, const Tensor& update, Tensor& value, Tensor& ema) {
  const int64_t n = value.numel();
  if (value.on_gpu())
    return gpu_kernels().optimizer.muon_move({.step = step, .kept = kept, .ema_decay = ema_decay},
                                             update.view(), value.view(), ema.view(), n);
  const float* o = update.data<float>();
  float *p = value.mutable_data<float>(), *average = ema.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) {
    p[i] = kept * p[i] - step * o[i];
    average[i] = ema_decay * average[i] + (1.0f - ema_decay) * p[i];
  }
}

}  // namespace

Tensor orthogonalized(const Tensor& matrix, DType products) {
  check(matrix.defined() && matrix.shape().rank() == 2 && matrix.dtype() == DType::f32,
        "orthogonalized: it takes a matrix in f32");
  const bool tall = matrix.size(0) > matrix.size(1);
  Tensor x = normalized(tall ? transpose(matrix) : matrix, products);
  for (int turn = 0; turn < turns; ++turn) {
    const Tensor gram = product(as_matrix(x), as_matrix(x).transposed(), products, x.device());
    x = product(as_matrix(polynomial(gram)), as_matrix(x), products, x.device());
  }
  x = cast(x, DType::f32);
  return tall ? transpose(x) : x;
}

void muon_step(const MuonStep& s, const Tensor& clip, Tensor& value, const Tensor& gradient, Tensor& mean,
               Tensor& ema, DType products) {
  check(value.shape().rank() == 2 && mean.shape() == value.shape() && ema.numel() == value.numel() &&
            (!gradient.defined() || gradient.numel() == value.numel()),
        "muon_step: momentum, average and gradient are not of the shape of the matrix, {}",
        to_string(value.shape()));
  const Tensor update = orthogonalized(moved_ahead(s, clip, gradient, mean), products);
  const auto longest = static_cast<float>(std::max(value.size(0), value.size(1)));
  const float step = 0.2f * std::sqrt(longest) * s.lr, kept = 1.0f - s.lr * s.weight_decay;
  move(kept, step, s.ema_decay, update, value, ema);
}

}  // namespace linnet::ops
