#include "eval/inception_score.h"

#include <cmath>
#include <numeric>

namespace linnet {

void InceptionScore::add(const Tensor& probabilities) {
  check(probabilities.shape().rank() == 2 &&
            (sums_.empty() || probabilities.size(1) == static_cast<int64_t>(sums_.size())),
        "probabilities of shape {} do not go with those before", to_string(probabilities.shape()));
  const int64_t classes = probabilities.size(1);
  sums_.resize(static_cast<size_t>(classes));
  for (int64_t i = 0; i < probabilities.size(0); ++i) {
    for (int64_t c = 0; c < classes; ++c) {
      const auto p = static_cast<double>(probabilities.data<float>()[i * classes + c]);
      sums_[static_cast<size_t>(c)] += p;
      if (p > 0) entropy_ += p * std::log(p);
    }
    if (++count_ < pictures_a_part_) continue;
    scores_.push_back(of_part());
    count_ = 0;
    entropy_ = 0;
    sums_.assign(sums_.size(), 0);
  }
}

// Σ_i Σ_c p log(p/q)/n = (Σ p log p)/n − Σ_c q log q, where q is the mean of p.
double InceptionScore::of_part() const {
  const auto n = static_cast<double>(count_);
  double divergence = entropy_ / n;
  for (const double sum : sums_)
    if (sum > 0) divergence -= sum / n * std::log(sum / n);
  return std::exp(divergence);
}

double InceptionScore::value() const {
  std::vector<double> scores = scores_;
  if (count_ > 0) scores.push_back(of_part());
  check(!scores.empty(), "there is no picture to score");
  return std::accumulate(scores.begin(), scores.end(), 0.0) / static_cast<double>(scores.size());
}

}  // namespace linnet
