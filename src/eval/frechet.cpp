// With C = SSᵀ the eigenvalues of C₁C₂ are the squares of the singular values of S₁ᵀS₂, so that the trace of
// (C₁C₂)^½ is the sum of these. S is Cholesky's factor with pivots, which ends where a singular covariance
// does: no square root is ever taken of what is only rounding, and of few pictures the factors are as narrow as
// their number.
#include "eval/frechet.h"

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/SVD>

#include <algorithm>

namespace linnet {
namespace {

// In Inception's size a part of 256 takes little more than twice as long to add as a part of one.
constexpr int64_t most_waiting = 256;

using Matrix = Eigen::MatrixXd;
using ConstMatrixMap = Eigen::Map<const Matrix>;  // column-major, but what is mapped is symmetric
using ConstVectorMap = Eigen::Map<const Eigen::VectorXd>;

ConstVectorMap as_vector(const std::vector<double>& values) {
  return {values.data(), static_cast<Eigen::Index>(values.size())};
}

// S, (d, rank), of a symmetric matrix SSᵀ that is positive but for rounding.
Matrix factor(const Matrix& covariance) {
  check(covariance.allFinite(), "a covariance matrix holds values that are no numbers");
  const Eigen::LDLT<Matrix> cholesky(covariance);
  const Eigen::VectorXd pivots = cholesky.vectorD();
  const double least =
      static_cast<double>(pivots.size()) * std::numeric_limits<double>::epsilon() * pivots.maxCoeff();
  Eigen::Index rank = 0;
  while (rank < pivots.size() && pivots[rank] > least) ++rank;
  Matrix result = Matrix(cholesky.matrixL()).leftCols(rank) * pivots.head(rank).cwiseSqrt().asDiagonal();
  return cholesky.transpositionsP().transpose() * result;
}

// The sum of a matrix's singular values: those of the bidiagonal matrix B that reflections make of it, which
// are the eigenvalues above 0 of the tridiagonal matrix that has no diagonal and B's elements, d₁, e₁, d₂, e₂,
// …, beside it (Golub and Kahan 1965). Nothing is squared, so that small ones keep their size.
double sum_of_singular_values(const Matrix& matrix) {
  if (matrix.size() == 0) return 0;
  if (matrix.rows() < matrix.cols()) return sum_of_singular_values(matrix.transpose());
  const Eigen::internal::UpperBidiagonalization<Matrix> reduced(matrix);
  const auto& band =
      reduced.bidiagonal().coeffs();  // (2, n): what is above the diagonal, from place 1 on; the diagonal
  const Eigen::Index n = matrix.cols();
  Eigen::VectorXd beside(2 * n - 1);
  for (Eigen::Index i = 0; i < n; ++i) {
    beside[2 * i] = band(1, i);
    if (i + 1 < n) beside[2 * i + 1] = band(0, i + 1);
  }
  Eigen::SelfAdjointEigenSolver<Matrix> solver;
  solver.computeFromTridiagonal(Eigen::VectorXd::Zero(2 * n), beside, Eigen::EigenvaluesOnly);
  check(solver.info() == Eigen::Success, "the singular values of two covariances' product cannot be found");
  return solver.eigenvalues().tail(n).sum();
}

}  // namespace

FeatureStatistics::FeatureStatistics(int64_t size)
    : mean_(static_cast<size_t>(size)), scatter_(static_cast<size_t>(size * size)) {}

FeatureStatistics::FeatureStatistics(int64_t count, std::vector<double> mean, std::vector<double> covariance)
    : count_(count), mean_(std::move(mean)), scatter_(std::move(covariance)) {
  check(scatter_.size() == mean_.size() * mean_.size(),
        "a covariance of {} numbers does not go with a mean of {}", scatter_.size(), mean_.size());
  check(count >= 2, "statistics of {} pictures say nothing of how they vary", count);
  for (double& value : scatter_) value *= static_cast<double>(count - 1);
}

void FeatureStatistics::add(const Tensor& features) {
  check(features.shape().rank() == 2 && features.size(1) == size(),
        "features of shape {} are not of {} numbers each", to_string(features.shape()), size());
  const Eigen::Index n = features.size(0);
  if (n == 0) return;
  const Eigen::Map<const Eigen::MatrixXf> columns(features.data<float>(), size(), n);  // a picture a column
  Matrix centred = columns.cast<double>();
  const Eigen::VectorXd mean = centred.rowwise().mean();
  centred.colwise() -= mean;
  Matrix scatter = Matrix::Zero(size(), size());
  scatter.selfadjointView<Eigen::Lower>().rankUpdate(centred);
  scatter = Matrix(scatter.selfadjointView<Eigen::Lower>());
  merge(n, mean.data(), scatter.data());
}

void FeatureStatistics::merge(const FeatureStatistics& other) {
  check(other.size() == size(), "statistics of {} and of {} features cannot be merged", size(), other.size());
  merge(other.count_, other.mean_.data(), other.scatter_.data());
}

// Chan, Golub and LeVeque 1983, equations 2.1: no difference of large sums.
void FeatureStatistics::merge(int64_t count, const double* mean, const double* scatter) {
  if (count == 0) return;
  const Eigen::Index d = size();
  const auto ours = static_cast<double>(count_), theirs = static_cast<double>(count), both = ours + theirs;
  Eigen::Map<Eigen::VectorXd> own_mean(mean_.data(), d);
  Eigen::Map<Matrix> own_scatter(scatter_.data(), d, d);
  const Eigen::VectorXd apart = ConstVectorMap(mean, d) - own_mean;
  own_scatter += ConstMatrixMap(scatter, d, d) + (ours * theirs / both) * (apart * apart.transpose());
  own_mean += (theirs / both) * apart;
  count_ += count;
}

std::vector<double> FeatureStatistics::covariance() const {
  check(count_ >= 2, "statistics of {} pictures say nothing of how they vary", count_);
  std::vector<double> result = scatter_;
  for (double& value : result) value /= static_cast<double>(count_ - 1);
  return result;
}

FeatureGatherer::FeatureGatherer(FeatureStatistics& into)
    : into_(into), waiting_(Tensor::empty({most_waiting, into.size()})) {}

void FeatureGatherer::add(const Tensor& features) {
  check(features.shape().rank() == 2 && features.size(1) == into_.size(),
        "features of shape {} are not of {} numbers each", to_string(features.shape()), into_.size());
  const int64_t d = into_.size(), n = features.size(0);
  for (int64_t taken = 0; taken < n;) {
    const int64_t rows = std::min(n - taken, most_waiting - count_);
    std::copy_n(features.data<float>() + taken * d, rows * d, waiting_.mutable_data<float>() + count_ * d);
    taken += rows;
    count_ += rows;
    if (count_ == most_waiting) finish();
  }
}

void FeatureGatherer::finish() {
  if (count_ > 0) into_.add(waiting_.rows(0, count_));
  count_ = 0;
}

double frechet_distance(const FeatureStatistics& one, const FeatureStatistics& other) {
  check(one.size() == other.size(), "{} features cannot be compared with {}", one.size(), other.size());
  const Eigen::Index d = one.size();
  const std::vector<double> first = one.covariance(), second = other.covariance();
  const ConstMatrixMap c1(first.data(), d, d), c2(second.data(), d, d);
  const Matrix product = factor(c1).transpose() * factor(c2);
  const double root_trace = sum_of_singular_values(product);
  const double distance = (as_vector(one.mean()) - as_vector(other.mean())).squaredNorm() + c1.trace() +
                          c2.trace() - 2 * root_trace;
  return std::max(0.0, distance);
}

}  // namespace linnet
