// The Inception score (Salimans et al. 2016) as ADM's suite computes it: e^KL(p(class | picture) ‖ p(class))
// over parts of 5,000 pictures, averaged.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace linnet {

class InceptionScore {
 public:
  explicit InceptionScore(int64_t pictures_a_part = 5000) : pictures_a_part_(pictures_a_part) {}

  /// probabilities (n, classes) f32, in the pictures' order.
  void add(const Tensor& probabilities);
  /// Throws Error before any picture came.
  double value() const;

 private:
  double of_part() const;

  int64_t pictures_a_part_, count_ = 0;  // of the part at hand
  std::vector<double> sums_;             // of the classes' probabilities
  double entropy_ = 0;                   // Σ p log p
  std::vector<double> scores_;           // of parts that are complete
};

}  // namespace linnet
