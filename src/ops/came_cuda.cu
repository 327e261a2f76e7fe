// CAME: what it keeps of a matrix are means over rows and columns, so a step is three readings of the gradient,
// each followed by a small kernel that finishes sums; the update itself never lies in memory. Moves 40 bytes a
// parameter.
#include "ops/came_cuda.h"

#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

using ops::GpuCame;

constexpr float least_square = 1e-30f, least_residual = 1e-16f;  // the published epsilons

// A tile of a matrix is a block's: each of its warps takes every tile_warps-th row, each lane four columns.
constexpr int tile_rows = 64, tile_warps = 8, lane_columns = 4, tile_columns = lane_columns * warp_size;

// A parameter as a stack of matrices, and how tiles cover each.
struct Stack {
  int64_t count, rows, columns, tiles_down, tiles_across;

  Stack(int64_t count_, int64_t rows_, int64_t columns_)
      : count(count_), rows(rows_), columns(columns_), tiles_down(divide_up(rows, tile_rows)),
        tiles_across(divide_up(columns, tile_columns)) {}
  __host__ __device__ unsigned tiles() const {
    return static_cast<unsigned>(count * tiles_down * tiles_across);
  }
  dim3 blocks() const { return dim3(tiles()); }
};

// Means of squares over each row and each column, and of the former over each matrix.
struct Means {
  float *rows, *columns, *matrices;
};

// What a step reads and writes of a parameter.
struct Parameter {
  const float *clip, *gradient;  // gradient may be null
  float *value, *mean, *ema;

  __device__ float slope(int64_t i) const { return gradient != nullptr ? *clip * gradient[i] : 0.0f; }
};

// 1 over the root of what means of rows and columns make of a square. Of numbers as small as least_square the
// factors are in range, their product may not be.
__device__ float inverse_root(const Means& means, const Stack& s, int64_t matrix, int64_t row, int64_t column) {
  return sqrtf(means.matrices[matrix]) / sqrtf(means.rows[matrix * s.rows + row]) *
         (1.0f / sqrtf(means.columns[matrix * s.columns + column]));
}

// each(matrix, row, column, index) for every number of this block's tile that is this thread's: all threads
// call `after_row` together when a row of theirs is done, and `each` is told which of its four columns it is
// at.
template <class Each, class AfterRow>
__device__ void for_tile(const Stack& s, const Each& each, const AfterRow& after_row) {
  const int64_t across = blockIdx.x % s.tiles_across, down = blockIdx.x / s.tiles_across % s.tiles_down;
  const int64_t matrix = blockIdx.x / s.tiles_across / s.tiles_down;
  const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
  for (int r = warp; r < tile_rows; r += tile_warps) {
    const int64_t row = down * tile_rows + r;
    if (row >= s.rows) break;  // whole warps
#pragma unroll
    for (int k = 0; k < lane_columns; ++k) {
      const int64_t column = across * tile_columns + k * warp_size + lane;
      if (column < s.columns) each(k, matrix, row, column, (matrix * s.rows + row) * s.columns + column);
    }
    after_row(matrix * s.rows + row, across, lane);
  }
}

// Sums over each row and each column of x², tile by tile: row_sums (count·rows, tiles across) and column_sums
// (count, tiles down, columns).
template <class X>
__device__ void sum_squares(const Stack& s, float* row_sums, float* column_sums, const X& x) {
  __shared__ float shared[tile_warps][tile_columns];
  float columns[lane_columns] = {}, row = 0;
  for_tile(
      s,
      [&](int k, int64_t matrix, int64_t r, int64_t column, int64_t index) {
        const float value = x(matrix, r, column, index);
        row += value * value;
        columns[k] += value * value;
      },
      [&](int64_t r, int64_t across, int lane) {
        row = warp_sum(row);
        if (lane == 0) row_sums[r * s.tiles_across + across] = row;
        row = 0;
      });
  const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int k = 0; k < lane_columns; ++k) shared[warp][k * warp_size + lane] = columns[k];
  __syncthreads();
  if (threadIdx.x >= tile_columns) return;
  const int64_t column = blockIdx.x % s.tiles_across * tile_columns + threadIdx.x;
  if (column >= s.columns) return;
  float sum = 0;
  for (int w = 0; w < tile_warps; ++w) sum += shared[w][threadIdx.x];
  column_sums[blockIdx.x / s.tiles_across * s.columns + column] = sum;
}

__global__ void square_gradient(Parameter p, Stack s, float* row_sums, float* column_sums) {
  sum_squares(s, row_sums, column_sums,
              [&](int64_t, int64_t, int64_t, int64_t index) { return p.slope(index); });
}

// means = decay·means + (1 − decay)·(mean of squares + least), a thread a row or a column.
__global__ void follow_means(const float* row_sums, const float* column_sums, Means means, Stack s, float decay,
                             float least) {
  const int64_t i = thread_number(), rows = s.count * s.rows;
  if (i >= rows + s.count * s.columns) return;
  const float* sums = row_sums + i * s.tiles_across;
  float* mean = means.rows + i;
  int64_t parts = s.tiles_across, step = 1, of = s.columns;
  if (i >= rows) {
    const int64_t at = i - rows;
    sums = column_sums + at / s.columns * s.tiles_down * s.columns + at % s.columns;
    mean = means.columns + at;
    parts = s.tiles_down, step = s.columns, of = s.rows;
  }
  float sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += sums[part * step];
  *mean = decay * *mean + (1.0f - decay) * (sum / static_cast<float>(of) + least);
}

// A block a matrix: the mean over its rows.
__global__ void average_rows(Means means, Stack s) {
  float sum = 0;
  for (int64_t i = threadIdx.x; i < s.rows; i += blockDim.x) sum += means.rows[blockIdx.x * s.rows + i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) means.matrices[blockIdx.x] = sum / static_cast<float>(s.rows);
}

// Of each block, Σ u² of the update u before it is limited.
__global__ void square_update(Parameter p, Stack s, Means squares, float* sums) {
  float sum = 0;
  for_tile(
      s,
      [&](int, int64_t matrix, int64_t row, int64_t column, int64_t index) {
        const float u = p.slope(index) * inverse_root(squares, s, matrix, row, column);
        sum += u * u;
      },
      [](int64_t, int64_t, int) {});
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// 1/max(1, root mean square of an update of n numbers), in every thread.
__device__ float shrink_by(const float* sums, int count, int64_t n) {
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) sum += sums[i];
  return 1.0f / fmaxf(1.0f, sqrtf(block_sum(sum) / static_cast<float>(n)));
}

// The momentum, and sums of squares of what the update differs from it.
__global__ void move_mean(Parameter p, Stack s, float beta1, Means squares, const float* sums, float* row_sums,
                          float* column_sums) {
  const float shrink = shrink_by(sums, static_cast<int>(s.tiles()), s.count * s.rows * s.columns);
  sum_squares(s, row_sums, column_sums, [&](int64_t matrix, int64_t row, int64_t column, int64_t index) {
    const float u = shrink * p.slope(index) * inverse_root(squares, s, matrix, row, column);
    const float m = beta1 * p.mean[index] + (1.0f - beta1) * u;
    p.mean[index] = m;
    return u - m;
  });
}

__device__ void move(const Parameter& p, const GpuCame& s, int64_t i, float step) {
  const float value = p.value[i] * (1.0f - s.lr * s.weight_decay) - s.lr * step;
  p.value[i] = value;
  p.ema[i] = s.ema_decay * p.ema[i] + (1.0f - s.ema_decay) * value;
}

__global__ void move_matrix(Parameter p, Stack s, GpuCame how, Means residuals) {
  for_tile(
      s,
      [&](int, int64_t matrix, int64_t row, int64_t column, int64_t index) {
        move(p, how, index, p.mean[index] * inverse_root(residuals, s, matrix, row, column));
      },
      [](int64_t, int64_t, int) {});
}

void follow(const float* row_sums, const float* column_sums, const Means& means, const Stack& s, float decay,
            float least) {
  constexpr int64_t threads = 256;
  const int64_t blocks = divide_up(s.count * (s.rows + s.columns), threads);
  launch(follow_means, dim3(static_cast<unsigned>(blocks)), dim3(threads), 0, row_sums, column_sums, means, s,
         decay, least);
  launch(average_rows, dim3(static_cast<unsigned>(s.count)), dim3(threads), 0, means, s);
}

void step_matrices(const GpuCame& how, const Parameter& p, Means squares, Means residuals, const Stack& s) {
  const auto floats = [](int64_t count) { return static_cast<size_t>(count) * sizeof(float); };
  const Scratch row_sums(floats(s.count * s.rows * s.tiles_across));
  const Scratch column_sums(floats(s.count * s.tiles_down * s.columns));
  const Scratch update_sums(floats(s.tiles())), matrices(floats(s.count));
  squares.matrices = residuals.matrices = matrices.as<float>();
  auto *const rows = row_sums.as<float>(), *const columns = column_sums.as<float>();
  const dim3 threads(tile_warps * warp_size);
  launch(square_gradient, s.blocks(), threads, 0, p, s, rows, columns);
  follow(rows, columns, squares, s, how.beta2, least_square);
  launch(square_update, s.blocks(), threads, 0, p, s, squares, update_sums.as<float>());
  launch(move_mean, s.blocks(), threads, 0, p, s, how.beta1, squares, update_sums.as<float>(), rows, columns);
  follow(rows, columns, residuals, s, how.beta3, least_residual);
  launch(move_matrix, s.blocks(), threads, 0, p, s, how, residuals);
}

// Of one dimension: means of squares of each number.
__global__ void square_vector(Parameter p, float beta2, float* square, float* sums, int64_t n) {
  float sum = 0;
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const float g = p.slope(i);
    square[i] = beta2 * square[i] + (1.0f - beta2) * (g * g + least_square);
    sum += g * g / square[i];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void move_vector(Parameter p, GpuCame s, const float* square, const float* sums, int64_t n) {
  const float shrink = shrink_by(sums, static_cast<int>(gridDim.x), n);
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const float u = shrink * p.slope(i) / sqrtf(square[i]);
    p.mean[i] = s.beta1 * p.mean[i] + (1.0f - s.beta1) * u;
    move(p, s, i, p.mean[i]);
  }
}

void step_vector(const GpuCame& s, const Parameter& p, float* square, int64_t n) {
  constexpr int64_t threads = 256, most = 1024;
  const auto blocks = static_cast<unsigned>(divide_up(n, threads) < most ? divide_up(n, threads) : most);
  const Scratch sums(blocks * sizeof(float));
  launch(square_vector, dim3(blocks), dim3(threads), 0, p, s.beta2, square, sums.as<float>(), n);
  launch(move_vector, dim3(blocks), dim3(threads), 0, p, s, square, sums.as<float>(), n);
}

}  // namespace

void came(const GpuCame& s, View clip, View value, View gradient, View mean, View square, View square_rows,
          View square_columns, View residual_rows, View residual_columns, View ema, int64_t count, int64_t rows,
          int64_t columns, int64_t n) {
  const Parameter p{clip.as<float>(), gradient.as<float>(), value.as<float>(), mean.as<float>(),
                    ema.as<float>()};
  if (count == 0) return step_vector(s, p, square.as<float>(), n);
  step_matrices(s, p, {square_rows.as<float>(), square_columns.as<float>(), nullptr},
                {residual_rows.as<float>(), residual_columns.as<float>(), nullptr},
                Stack(count, rows, columns));
}

}  // namespace linnet::cuda
