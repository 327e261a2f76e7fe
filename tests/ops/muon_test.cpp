// Muon's step against its formula, written plainly in f64, and against what it is for.
#include "ops/muon.h"

#include <cmath>

#include "ops/support.h"
#include "support/processor.h"

namespace linnet::ops::test {
namespace {

struct Matrix {
  size_t rows, columns;
  Values values;

  double& at(size_t i, size_t j) { return values[i * columns + j]; }
  double at(size_t i, size_t j) const { return values[i * columns + j]; }
};

Matrix times(const Matrix& x, const Matrix& y) {
  Matrix result{x.rows, y.columns, Values(x.rows * y.columns)};
  for (size_t i = 0; i < x.rows; ++i)
    for (size_t k = 0; k < x.columns; ++k)
      for (size_t j = 0; j < y.columns; ++j) result.at(i, j) += x.at(i, k) * y.at(k, j);
  return result;
}

Matrix turned(const Matrix& x) {
  Matrix result{x.columns, x.rows, Values(x.values.size())};
  for (size_t i = 0; i < x.rows; ++i)
    for (size_t j = 0; j < x.columns; ++j) result.at(j, i) = x.at(i, j);
  return result;
}

// X ← aX + (bXXᵀ + c(XXᵀ)²)X, five times.
Matrix orthogonal(Matrix x) {
  double norm = 0;
  for (const double v : x.values) norm += v * v;
  for (double& v : x.values) v /= std::sqrt(norm);
  for (int turn = 0; turn < 5; ++turn) {
    const Matrix gram = times(x, turned(x)), squared = times(gram, gram);
    Matrix polynomial = gram;
    for (size_t i = 0; i < gram.values.size(); ++i)
      polynomial.values[i] = -4.7750 * gram.values[i] + 2.0315 * squared.values[i];
    const Matrix change = times(polynomial, x);
    for (size_t i = 0; i < x.values.size(); ++i) x.values[i] = 3.4445 * x.values[i] + change.values[i];
  }
  return x;
}

Values to_f64(const Tensor& tensor) {
  const auto values = tensor.values<float>();
  return {values.begin(), values.end()};
}

double error(const Tensor& found, const Values& expected) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(found.data<float>()[i]) - expected[i], 2.0);
    size += expected[i] * expected[i];
  }
  return std::sqrt(difference / size);
}

TEST(Muon, MakesSingularValuesAlike) {
  for (const auto& [rows, columns] : {std::pair{24, 24}, {8, 40}, {40, 8}}) {
    const Tensor matrix = random({rows, columns}, 3);
    Matrix reference{static_cast<size_t>(rows), static_cast<size_t>(columns), to_f64(matrix)};
    for (const DType dtype : linnet::test::product_dtypes())
      EXPECT_LT(error(orthogonalized(matrix, dtype), orthogonal(reference).values),
                dtype == DType::f32 ? 1e-4 : 5e-2);
    // Sums of squares of singular values near 1.
    const Values found = to_f64(orthogonalized(matrix, DType::f32));
    double squares = 0;
    for (const double v : found) squares += v * v;
    const double mean = squares / static_cast<double>(std::min(rows, columns));
    EXPECT_GT(mean, 0.5);
    EXPECT_LT(mean, 1.5);
  }
  const Tensor nothing = orthogonalized(Tensor::zeros({4, 6}), DType::f32);
  for (const float v : nothing.values<float>()) EXPECT_EQ(v, 0.0f);
}

const Tensor clip = Tensor::full({1}, 0.5f);

TEST(Muon, StepsAsItsFormulaSays) {
  const MuonStep settings{1e-2f, 0.9f, 0.1f, 0.99f};
  Tensor value = random({12, 20}, 1), mean = Tensor::zeros({12, 20}), ema = value.clone();
  Values expected = to_f64(value), momentum(expected.size()), average = expected;
  for (uint64_t turn = 0; turn < 3; ++turn) {
    const Tensor gradient = random({12, 20}, 10 + turn);
    muon_step(settings, clip, {{value, turn == 2 ? Tensor() : gradient, mean, {}, ema}}, DType::f32);
    Matrix ahead{12, 20, Values(expected.size())};
    for (size_t i = 0; i < expected.size(); ++i) {
      const double g = turn == 2 ? 0 : 0.5 * static_cast<double>(gradient.data<float>()[i]);
      momentum[i] = 0.9 * momentum[i] + g;
      ahead.values[i] = g + 0.9 * momentum[i];
    }
    const Matrix update = orthogonal(ahead);
    for (size_t i = 0; i < expected.size(); ++i) {
      expected[i] = expected[i] * (1 - 1e-2 * 0.1) - 1e-2 * 0.2 * std::sqrt(20.0) * update.values[i];
      average[i] = 0.99 * average[i] + 0.01 * expected[i];
    }
  }
  EXPECT_LT(error(value, expected), 1e-5);
  EXPECT_LT(error(mean, momentum), 1e-5);
  EXPECT_LT(error(ema, average), 1e-5);
}

TEST(Muon, RefusesWhatIsNoMatrix) {
  const MuonStep settings{1e-2f, 0.9f, 0.1f, 0.99f};
  Tensor vector = random({6}, 1), mean = Tensor::zeros({6}), ema = vector.clone();
  EXPECT_THROW(muon_step(settings, clip, {{vector, {}, mean, {}, ema}}, DType::f32), Error);
  EXPECT_THROW(orthogonalized(vector, DType::f32), Error);
}

}  // namespace
}  // namespace linnet::ops::test
