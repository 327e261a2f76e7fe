#include "ops/came.h"

#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/gpu_kernels.h"
#include "ops/reduce.h"

namespace linnet::ops {
namespace {

constexpr float least_square = 1e-30f, least_residual = 1e-16f;  // the published epsilons

// A parameter as a stack of matrices.
struct Stack {
  int64_t count = 1, rows = 1, columns = 1;

  explicit Stack(const Shape& shape) {
    const int rank = shape.rank();
    rows = shape[rank - 2];
    columns = shape[rank - 1];
    for (int i = 0; i < rank - 2; ++i) count *= shape[i];
  }
};

// means = decay·means + (1 − decay)·mean of x² + least over each row and over each column, of every matrix.
void follow_squares(const float* x, const Stack& s, float decay, float least, float* row_means,
                    float* column_means) {
  const float share = 1.0f - decay;
  parallel_for(s.count * s.rows, std::max<int64_t>(1, 4096 / s.columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float sum = 0;
      for (int64_t j = 0; j < s.columns; ++j) sum += x[row * s.columns + j] * x[row * s.columns + j];
      row_means[row] = decay * row_means[row] + share * (sum / static_cast<float>(s.columns) + least);
    }
  });
  parallel_for(s.count * s.columns, std::max<int64_t>(16, 4096 / s.rows), [&](int64_t begin, int64_t end) {
    std::vector<float> sums(static_cast<size_t>(end - begin));
    const auto of = [&](int64_t column) { return static_cast<size_t>(column - begin); };
    for (int64_t column = begin; column < end;) {
      const int64_t matrix = column / s.columns, stop = std::min(end, (matrix + 1) * s.columns);
      const float* first = x + matrix * s.rows * s.columns - matrix * s.columns;
      for (int64_t i = 0; i < s.rows; ++i)
        for (int64_t j = column; j < stop; ++j)
          sums[of(j)] += first[i * s.columns + j] * first[i * s.columns + j];
      column = stop;
    }
    for (int64_t j = begin; j < end; ++j)
      column_means[j] = decay * column_means[j] + share * (sums[of(j)] / static_cast<float>(s.rows) + least);
  });
}

// out = x / √(what the means of rows and columns make of each square).
void divide_by_root(const float* x, const Stack& s, const float* row_means, const float* column_means,
                    float* out) {
  parallel_for(s.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t matrix = begin; matrix < end; ++matrix) {
      const float *rows = row_means + matrix * s.rows, *columns = column_means + matrix * s.columns;
      double sum = 0;
      for (int64_t i = 0; i < s.rows; ++i) sum += static_cast<double>(rows[i]);
      const auto mean = static_cast<float>(sum / static_cast<double>(s.rows));
      std::vector<float> by_column(static_cast<size_t>(s.columns));
      for (int64_t j = 0; j < s.columns; ++j) by_column[static_cast<size_t>(j)] = 1.0f / std::sqrt(columns[j]);
      const int64_t first = matrix * s.rows * s.columns;
      parallel_for(s.rows, std::max<int64_t>(1, 4096 / s.columns), [&](int64_t row, int64_t last) {
        for (; row < last; ++row) {
          const float by_row = std::sqrt(mean) / std::sqrt(rows[row]);  // whose quotient may be infinite
          for (int64_t j = 0; j < s.columns; ++j) {
            const int64_t at = first + row * s.columns + j;
            out[at] = x[at] * by_row * by_column[static_cast<size_t>(j)];
          }
        }
      });
    }
  });
}

// Calls each(i) for every number of a parameter.
template <class Each>
void for_all(int64_t n, const Each& each) {
  parallel_for(n, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) each(i);
  });
}

Tensor scaled(const Tensor& gradient, const Tensor& value, float scale) {
  if (!gradient.defined()) return Tensor::zeros(value.shape());
  Tensor result = Tensor::empty(value.shape());
  const float* from = gradient.data<float>();
  float* to = result.mutable_data<float>();
  for_all(value.numel(), [=](int64_t i) { to[i] = scale * from[i]; });
  return result;
}

}  // namespace

CameState fresh_came_state(const Shape& shape, const Device& device) {
  const auto zeros = [&device](const Shape& of) { return Tensor::zeros(of, DType::f32, device); };
  CameState state;
  state.mean = zeros(shape);
  if (shape.rank() < 2) {
    state.square = zeros(shape);
    return state;
  }
  const Stack s(shape);
  state.square_rows = zeros({s.count * s.rows});
  state.square_columns = zeros({s.count * s.columns});
  state.residual_rows = zeros({s.count * s.rows});
  state.residual_columns = zeros({s.count * s.columns});
  return state;
}

namespace {

void step_on_gpu(const CameStep& s, const Tensor& clip, Tensor& value, const Tensor& gradient, CameState& state,
                 Tensor& ema) {
  const GpuCame settings{s.lr, s.beta1, s.beta2, s.beta3, s.weight_decay, s.ema_decay};
  int64_t count = 0, rows = 0, columns = 0;
  if (value.shape().rank() >= 2) {
    const Stack stack(value.shape());
    count = stack.count, rows = stack.rows, columns = stack.columns;
  }
  gpu_kernels().optimizer.came(settings, clip.view(), value.view(), gradient.view(), state.mean.view(),
                               state.square.view(), state.square_rows.view(), state.square_columns.view(),
                               state.residual_rows.view(), state.residual_columns.view(), ema.view(), count,
                               rows, columns, value.numel());
}

}  // namespace

void came_step(const CameStep& settings, const Tensor& clip, Tensor& value, const Tensor& gradient,
               CameState& state, Tensor& ema) {
  check(!gradient.defined() || gradient.numel() == value.numel(),
        "came_step: a gradient of shape {} for a parameter of shape {}", to_string(gradient.shape()),
        to_string(value.shape()));
  check(state.mean.numel() == value.numel() && ema.numel() == value.numel(),
        "came_step: a state of shape {} for a parameter of shape {}", to_string(state.mean.shape()),
        to_string(value.shape()));
  if (value.on_gpu()) return step_on_gpu(settings, clip, value, gradient, state, ema);
  const int64_t n = value.numel();
  const bool factored = value.shape().rank() >= 2;
  const CameStep s = settings;
  Tensor change = scaled(gradient, value, clip.item());
  float *u = change.mutable_data<float>(), *m = state.mean.mutable_data<float>();
  if (factored) {
    const Stack stack(value.shape());
    float *rows = state.square_rows.mutable_data<float>(),
          *columns = state.square_columns.mutable_data<float>();
    follow_squares(u, stack, s.beta2, least_square, rows, columns);
    divide_by_root(u, stack, rows, columns, u);
  } else {
    float* square = state.square.mutable_data<float>();
    for_all(n, [=](int64_t i) {
      square[i] = s.beta2 * square[i] + (1.0f - s.beta2) * (u[i] * u[i] + least_square);
      u[i] /= std::sqrt(square[i]);
    });
  }
  const double size = std::sqrt(sum_of_squares(change) / static_cast<double>(n));
  const auto shrink = static_cast<float>(1.0 / std::max(1.0, size));
  for_all(n, [=](int64_t i) {
    const float update = shrink * u[i];
    m[i] = s.beta1 * m[i] + (1.0f - s.beta1) * update;
    u[i] = update - m[i];
  });
  const float* step = m;
  if (factored) {
    const Stack stack(value.shape());
    float *rows = state.residual_rows.mutable_data<float>(),
          *columns = state.residual_columns.mutable_data<float>();
    follow_squares(u, stack, s.beta3, least_residual, rows, columns);
    divide_by_root(m, stack, rows, columns, u);
    step = u;
  }
  float *p = value.mutable_data<float>(), *average = ema.mutable_data<float>();
  for_all(n, [=](int64_t i) {
    p[i] = p[i] * (1.0f - s.lr * s.weight_decay) - s.lr * step[i];
    average[i] = s.ema_decay * average[i] + (1.0f - s.ema_decay) * p[i];
  });
}

}  // namespace linnet::ops
