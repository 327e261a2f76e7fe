#include "ops/muon.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>

#include "core/parallel.h"
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

// Numbers of matrices that go through the products together: more would take memory and no less time.
constexpr int64_t most_together = int64_t{16} << 20;

Tensor product(const MatrixView& x, const MatrixView& y, DType dtype) {
  Tensor result = Tensor::empty({x.rows, y.columns}, dtype);
  matmul(x, y, result);
  return result;
}

// a·1 + b·gram + c·gram²
Tensor polynomial(const Tensor& gram) {
  const DType products = gram.dtype();
  Tensor result = product(as_matrix(gram), as_matrix(gram), DType::f32);
  const int64_t n = result.numel(), rows = gram.size(0);
  const Tensor linear = cast(gram, DType::f32);
  const float* from = linear.data<float>();
  float* to = result.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) to[i] = b * from[i] + c * to[i];
  for (int64_t i = 0; i < rows; ++i) to[i * rows + i] += a;
  return cast(result, products);
}

// x over its norm, in the products' type.
Tensor normalized(const Tensor& x, DType products) {
  Tensor y = x.clone();
  const float scale = 1.0f / std::max(static_cast<float>(std::sqrt(sum_of_squares(x))), least_norm);
  for (float& value : std::span(y.mutable_data<float>(), static_cast<size_t>(y.numel()))) value *= scale;
  return cast(y, products);
}

// The momentum, and where it leads together with this step's gradient (Nesterov's).
Tensor moved_ahead(float momentum, float clip, const Tensor& gradient, Tensor mean) {
  Tensor ahead = Tensor::empty(mean.shape());
  const int64_t n = mean.numel();
  const float* g = gradient.defined() ? gradient.data<float>() : nullptr;
  float *m = mean.mutable_data<float>(), *u = ahead.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) {
    const float slope = g ? clip * g[i] : 0.0f;
    m[i] = momentum * m[i] + slope;
    u[i] = slope + momentum * m[i];
  }
  return ahead;
}

// value = kept·value − step·update
struct Move {
  Move(const MuonStep& s, const Shape& shape)
      : step(0.2f * std::sqrt(static_cast<float>(std::max(shape[0], shape[1]))) * s.lr),
        kept(1.0f - s.lr * s.weight_decay) {}
  float step, kept;
};

void step_on_cpu(const MuonStep& s, float clip, Optimized matrix, DType products) {
  const Move move(s, matrix.value.shape());
  const Tensor update = orthogonalized(moved_ahead(s.momentum, clip, matrix.gradient, matrix.mean), products);
  const float* o = update.data<float>();
  float *p = matrix.value.mutable_data<float>(), *average = matrix.ema.mutable_data<float>();
  for (int64_t i = 0; i < matrix.value.numel(); ++i) {
    p[i] = move.kept * p[i] - move.step * o[i];
    average[i] = s.ema_decay * average[i] + (1.0f - s.ema_decay) * p[i];
  }
}

// On a GPU: stacks of matrices (count, rows, columns).
MatrixView first_of(const Tensor& stack) {
  return {stack.address(), stack.dtype(), stack.size(1), stack.size(2), stack.size(2), 1};
}

Tensor products_of(const Tensor& left, const MatrixView& x, const Tensor& right, const MatrixView& y,
                   DType dtype) {
  Tensor result = Tensor::empty({left.size(0), x.rows, y.columns}, dtype, left.device());
  gpu_kernels().product.matmul_batch(x, y, left.size(1) * left.size(2), right.size(1) * right.size(2),
                                     x.rows * y.columns, left.size(0), false, tf32_is_allowed(), result.view());
  return result;
}

Tensor orthogonalized_stack(const Tensor& stack, DType products) {
  const int64_t count = stack.size(0), rows = stack.size(1), columns = stack.size(2);
  const bool tall = rows > columns;
  Tensor x = Tensor::empty(stack.shape(), products, stack.device());
  gpu_kernels().optimizer.divide_by_norms(stack.view(), least_norm, x.view(), count, rows * columns);
  for (int turn = 0; turn < turns; ++turn) {
    const MatrixView v = first_of(x);
    const Tensor gram = products_of(x, tall ? v.transposed() : v, x, tall ? v : v.transposed(), products);
    const Tensor squared = products_of(gram, first_of(gram), gram, first_of(gram), DType::f32);
    const Tensor factor = Tensor::empty(gram.shape(), products, x.device());
    gpu_kernels().optimizer.muon_polynomial(gram.view(), squared.view(), a, b, c, factor.view(), count,
                                            std::min(rows, columns));
    x = tall ? products_of(x, v, factor, first_of(factor), products)
             : products_of(factor, first_of(factor), x, v, products);
  }
  return x;
}

void step_stack_on_gpu(const MuonStep& s, const Tensor& clip, const std::vector<Optimized>& matrices,
                       DType products) {
  const Shape& shape = matrices.front().value.shape();
  const auto count = static_cast<int64_t>(matrices.size());
  const std::vector<GpuParameter> views = on_gpu(matrices);
  const Move move(s, shape);
  const GpuMuon settings{s.momentum, move.step, move.kept, s.ema_decay};
  const Tensor ahead = Tensor::empty({count, shape[0], shape[1]}, DType::f32, clip.device());
  gpu_kernels().optimizer.muon_ahead(settings, clip.view(), views.data(), count, ahead.view());
  gpu_kernels().optimizer.muon_move(settings, orthogonalized_stack(ahead, products).view(), views.data(),
                                    count);
}

void step_on_gpu(const MuonStep& s, const Tensor& clip, const std::vector<Optimized>& matrices,
                 DType products) {
  std::map<std::pair<int64_t, int64_t>, std::vector<Optimized>> stacks;
  for (const Optimized& matrix : matrices) {
    std::vector<Optimized>& stack = stacks[{matrix.value.size(0), matrix.value.size(1)}];
    stack.push_back(matrix);
    if (static_cast<int64_t>(stack.size() + 1) * matrix.value.numel() <= most_together) continue;
    step_stack_on_gpu(s, clip, stack, products);
    stack.clear();
  }
  for (const auto& [shape, stack] : stacks)
    if (!stack.empty()) step_stack_on_gpu(s, clip, stack, products);
}

}  // namespace

Tensor orthogonalized(const Tensor& matrix, DType products) {
  check(matrix.defined() && matrix.shape().rank() == 2 && matrix.dtype() == DType::f32,
        "orthogonalized: it takes a matrix in f32");
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  if (matrix.on_gpu())
    return cast(orthogonalized_stack(matrix.reshape({1, rows, columns}), products), DType::f32)
        .reshape(matrix.shape());
  const bool tall = rows > columns;
  Tensor x = normalized(tall ? transpose(matrix) : matrix, products);
  for (int turn = 0; turn < turns; ++turn) {
    const Tensor gram = product(as_matrix(x), as_matrix(x).transposed(), products);
    x = product(as_matrix(polynomial(gram)), as_matrix(x), products);
  }
  x = cast(x, DType::f32);
  return tall ? transpose(x) : x;
}

void muon_step(const MuonStep& s, const Tensor& clip, const std::vector<Optimized>& matrices, DType products) {
  for (const Optimized& matrix : matrices) {
    check_sizes("muon_step", matrix);
    check(matrix.value.shape().rank() == 2, "muon_step: a parameter of shape {} is no matrix",
          to_string(matrix.value.shape()));
  }
  if (clip.on_gpu()) return step_on_gpu(s, clip, matrices, products);
  // Side by side: the products of one are too small for several threads in a small model, and in a large one
  // there are many.
  parallel_for(static_cast<int64_t>(matrices.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      step_on_cpu(s, clip.item(), matrices[static_cast<size_t>(i)], products);
  });
}

}  // namespace linnet::ops
