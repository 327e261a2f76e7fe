// The Fréchet distance between two sets of pictures, seen through a network's features (Heusel et al. 2017,
// "FID" with Inception's): that of the two normal distributions which have the sets' means and covariances,
//   |μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½).
#pragma once

#include <vector>

#include "core/tensor.h"

namespace linnet {

/// Mean and covariance of any number of feature vectors, gathered in f64 as they come, so that a set never
/// needs to be in memory. The order in which they come changes last bits only.
class FeatureStatistics {
 public:
  explicit FeatureStatistics(int64_t size);
  /// What mean() and covariance() gave. Throws Error when sizes differ or count is below two.
  FeatureStatistics(int64_t count, std::vector<double> mean, std::vector<double> covariance);

  /// features (n, size) f32.
  void add(const Tensor& features);
  /// Throws Error when the other's features are of another size.
  void merge(const FeatureStatistics& other);

  int64_t size() const { return static_cast<int64_t>(mean_.size()); }
  int64_t count() const { return count_; }
  const std::vector<double>& mean() const { return mean_; }
  /// (size, size), unbiased: sums are divided by count − 1. Throws Error below two vectors.
  std::vector<double> covariance() const;

 private:
  void merge(int64_t count, const double* mean, const double* scatter);

  int64_t count_ = 0;
  std::vector<double> mean_;
  std::vector<double> scatter_;  ///< Σ (x − mean)(x − mean)ᵀ
};

/// Adds a set to statistics that comes in parts of any size, as small as one vector: adding takes passes over
/// all of the covariance, so that vectors wait until they are many. How the set was cut changes no bit.
class FeatureGatherer {
 public:
  /// into: outlives this, and has what was added after finish().
  explicit FeatureGatherer(FeatureStatistics& into);

  /// features (n, size) f32.
  void add(const Tensor& features);
  void finish();

 private:
  FeatureStatistics& into_;
  Tensor waiting_;  ///< (most that wait, size)
  int64_t count_ = 0;
};

/// Never negative. Throws Error when the sizes differ or either holds fewer than two vectors.
double frechet_distance(const FeatureStatistics& one, const FeatureStatistics& other);

}  // namespace linnet
