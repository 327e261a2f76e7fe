// CAME's step against its formula (Luo et al., arXiv 2307.02047, algorithm 2), written plainly in f64.
#include "ops/came.h"

#include "ops/support.h"

namespace linnet::ops::test {
namespace {

constexpr CameStep settings{1e-2f, 0.9f, 0.99f, 0.995f, 0.1f, 0.99f};

const Tensor clip = Tensor::full({1}, 0.5f);

// One matrix, or one vector if columns is 0.
struct Reference {
  size_t rows, columns;
  Values value, mean, square, row_squares, column_squares, row_residuals, column_residuals, ema;

  Reference(size_t rows_, size_t columns_, const Values& start)
      : rows(rows_), columns(columns_), value(start), mean(start.size()), square(start.size()),
        row_squares(rows), column_squares(columns), row_residuals(rows), column_residuals(columns), ema(start) {
  }

  void follow(const Values& x, double decay, double least, Values& by_row, Values& by_column) const {
    Values row_sums(rows), column_sums(columns);
    for (size_t i = 0; i < rows; ++i)
      for (size_t j = 0; j < columns; ++j) {
        const double square_here = x[i * columns + j] * x[i * columns + j] + least;
        row_sums[i] += square_here / static_cast<double>(columns);
        column_sums[j] += square_here / static_cast<double>(rows);
      }
    for (size_t i = 0; i < rows; ++i) by_row[i] = decay * by_row[i] + (1 - decay) * row_sums[i];
    for (size_t j = 0; j < columns; ++j) by_column[j] = decay * by_column[j] + (1 - decay) * column_sums[j];
  }
  Values divided(const Values& x, const Values& by_row, const Values& by_column) const {
    double mean_row = 0;
    for (const double row : by_row) mean_row += row / static_cast<double>(rows);
    Values result(x.size());
    for (size_t i = 0; i < rows; ++i)
      for (size_t j = 0; j < columns; ++j)
        result[i * columns + j] = x[i * columns + j] / std::sqrt(by_row[i] * by_column[j] / mean_row);
    return result;
  }

  void step(const Values& gradient) {
    Values g = gradient, update(g.size());
    for (double& x : g) x *= 0.5;
    if (columns > 0) {
      follow(g, 0.99, 1e-30, row_squares, column_squares);
      update = divided(g, row_squares, column_squares);
    } else {
      for (size_t i = 0; i < g.size(); ++i) {
        square[i] = 0.99 * square[i] + 0.01 * (g[i] * g[i] + 1e-30);
        update[i] = g[i] / std::sqrt(square[i]);
      }
    }
    double size = 0;
    for (const double u : update) size += u * u / static_cast<double>(update.size());
    Values residual(update.size());
    for (size_t i = 0; i < update.size(); ++i) {
      update[i] /= std::max(1.0, std::sqrt(size));
      mean[i] = 0.9 * mean[i] + 0.1 * update[i];
      residual[i] = update[i] - mean[i];
    }
    Values change = mean;
    if (columns > 0) {
      follow(residual, 0.995, 1e-16, row_residuals, column_residuals);
      change = divided(mean, row_residuals, column_residuals);
    }
    for (size_t i = 0; i < value.size(); ++i) {
      value[i] = value[i] * (1 - 1e-2 * 0.1) - 1e-2 * change[i];
      ema[i] = 0.99 * ema[i] + 0.01 * value[i];
    }
  }
};

void expect_follows(const Shape& shape, size_t count, size_t rows, size_t columns) {
  Tensor value = random(shape, 1), ema = value.clone();
  CameState state = fresh_came_state(shape);
  std::vector<Reference> references;
  const Values start = values_of(value);
  const size_t each = start.size() / count;
  const auto part = [each](const Values& all, size_t i) {
    return Values(all.begin() + static_cast<ptrdiff_t>(i * each),
                  all.begin() + static_cast<ptrdiff_t>((i + 1) * each));
  };
  for (size_t i = 0; i < count; ++i) references.emplace_back(rows, columns, part(start, i));
  for (uint64_t step = 0; step < 4; ++step) {
    const Tensor gradient = random(shape, 10 + step);
    came_step(settings, clip, value, gradient, state, ema);
    for (size_t i = 0; i < count; ++i) references[i].step(part(values_of(gradient), i));
  }
  Values expected, averaged;
  for (const Reference& reference : references) {
    expected.insert(expected.end(), reference.value.begin(), reference.value.end());
    averaged.insert(averaged.end(), reference.ema.begin(), reference.ema.end());
  }
  EXPECT_LT(relative_error(value, expected), 1e-4) << to_string(shape);
  EXPECT_LT(relative_error(ema, averaged), 1e-4) << to_string(shape);
}

TEST(Came, FollowsItsFormulaOfMatrices) {
  expect_follows({7, 13}, 1, 7, 13);
  expect_follows({1, 5}, 1, 1, 5);
  expect_follows({130, 300}, 1, 130, 300);
}

TEST(Came, FollowsItsFormulaOfVectors) { expect_follows({50}, 1, 50, 0); }

// The size of an update is limited over the whole parameter, and here each matrix alone: of one matrix in
// front.
TEST(Came, FollowsItsFormulaOfKernels) { expect_follows({1, 1, 5, 5}, 1, 5, 5); }

// As of a class that has not been seen yet, beside large gradients of the others.
TEST(Came, ARowWithoutGradientsStaysFinite) {
  Tensor value = random({4, 3}, 1), ema = value.clone(), gradient = random({4, 3}, 2);
  for (int64_t i = 0; i < 12; ++i) gradient.mutable_data<float>()[i] *= i < 3 ? 0.0f : 1e5f;
  CameState state = fresh_came_state(value.shape());
  for (int step = 0; step < 3; ++step) came_step(settings, clip, value, gradient, state, ema);
  for (const float x : value.values<float>()) EXPECT_TRUE(std::isfinite(x));
}

TEST(Came, DoesNotDependOnTheNumberOfThreads) {
  // Of many small matrices the loops over matrices, rows and columns are cut; of a large one those over
  // numbers.
  for (const Shape& shape : {Shape{288, 1, 5, 5}, Shape{300, 250}}) {
    const Tensor gradient = random(shape, 3);
    Tensor one;
    for (const int count : {1, 2, 3}) {
      const Threads guard(count);
      Tensor value = random(shape, 1), ema = value.clone();
      CameState state = fresh_came_state(shape);
      came_step(settings, clip, value, gradient, state, ema);
      if (count == 1) one = value;
      EXPECT_TRUE(same_bytes(one, value)) << to_string(shape) << " " << count;
    }
  }
}

// Matrices of a stack have means of their own: scaling the gradient of one changes nothing for the other, as
// long as no update is limited.
TEST(Came, MatricesOfAStackAreFollowedApart) {
  Tensor value = random({2, 4, 3}, 1), other = value.clone(), ema = value.clone(), other_ema = value.clone();
  CameState state = fresh_came_state(value.shape()), other_state = fresh_came_state(value.shape());
  Tensor gradient = random({2, 4, 3}, 2), larger = gradient.clone();
  for (int64_t i = 12; i < 24; ++i) larger.mutable_data<float>()[i] *= 3;
  CameStep still = settings;
  still.beta2 = 0;  // then the update's size is about 1 whatever the gradient's
  came_step(still, clip, value, gradient, state, ema);
  came_step(still, clip, other, larger, other_state, other_ema);
  const Values a = values_of(value), b = values_of(other);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5) << i;
}

TEST(Came, RefusesTensorsOfOtherSizes) {
  Tensor value = random({4, 4}, 1), ema = value.clone();
  CameState state = fresh_came_state(value.shape());
  EXPECT_NE(error_of([&] {
              came_step(settings, clip, value, random({3, 4}, 2), state, ema);
            }).find("gradient of shape"),
            std::string::npos);
}

}  // namespace
}  // namespace linnet::ops::test
