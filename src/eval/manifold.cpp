#include "eval/manifold.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "ops/matmul.h"

namespace linnet {
namespace {

constexpr int64_t rows_at_once = 1024, columns_at_once = 4096;

ops::MatrixView rows_of(const Tensor& x, int64_t begin, int64_t end) {
  return {x.data<float>() + begin * x.size(1), DType::f32, end - begin, x.size(1), x.size(1), 1};
}

std::vector<double> squares_of(const Tensor& x) {
  std::vector<double> result(static_cast<size_t>(x.size(0)));
  const int64_t d = x.size(1);
  for (int64_t i = 0; i < x.size(0); ++i)
    for (int64_t c = 0; c < d; ++c) {
      const auto value = static_cast<double>(x.data<float>()[i * d + c]);
      result[static_cast<size_t>(i)] += value * value;
    }
  return result;
}

// A set with its members' squared lengths.
struct Set {
  explicit Set(const Tensor& x_) : x(x_), squares(squares_of(x_)) {}
  int64_t size() const { return x.size(0); }
  const Tensor& x;
  std::vector<double> squares;
};

// Calls on_row(i, first, squared distances of a's member i to b's from first on), block by block, rows in
// parallel. |a − b|² = |a|² − 2a·b + |b|²
template <class OnRow>
void for_distances(const Set& a, const Set& b, const std::function<void(int64_t pairs)>& progress,
                   OnRow&& on_row) {
  for (int64_t top = 0; top < a.size(); top += rows_at_once) {
    const int64_t bottom = std::min(top + rows_at_once, a.size());
    for (int64_t left = 0; left < b.size(); left += columns_at_once) {
      const int64_t right = std::min(left + columns_at_once, b.size()), columns = right - left;
      Tensor products = Tensor::empty({bottom - top, columns});
      ops::matmul(rows_of(a.x, top, bottom), rows_of(b.x, left, right).transposed(), products);
      const float* product = products.data<float>();
      parallel_for(bottom - top, 16, [&](int64_t begin, int64_t end) {
        std::vector<float> distances(static_cast<size_t>(columns));
        for (int64_t i = begin; i < end; ++i) {
          for (int64_t j = 0; j < columns; ++j)
            distances[static_cast<size_t>(j)] =
                static_cast<float>(std::max(0.0, a.squares[static_cast<size_t>(top + i)] -
                                                     2.0 * static_cast<double>(product[i * columns + j]) +
                                                     b.squares[static_cast<size_t>(left + j)]));
          on_row(top + i, left, distances);
        }
      });
      if (progress) progress((bottom - top) * columns);
    }
  }
}

// The squared distance of each member to its neighbours-th nearest other one.
std::vector<float> radii_of(const Set& set, int64_t neighbours,
                            const std::function<void(int64_t pairs)>& progress) {
  const auto kept = static_cast<size_t>(neighbours + 1);  // it is its own nearest
  std::vector<std::vector<float>> nearest(static_cast<size_t>(set.size()));
  for_distances(set, set, progress, [&](int64_t i, int64_t, const std::vector<float>& distances) {
    std::vector<float>& own = nearest[static_cast<size_t>(i)];
    own.insert(own.end(), distances.begin(), distances.end());
    if (own.size() <= kept) return;
    std::nth_element(own.begin(), own.begin() + static_cast<int64_t>(kept), own.end());
    own.resize(kept);
    own.shrink_to_fit();
  });
  std::vector<float> radii;
  for (const std::vector<float>& own : nearest) radii.push_back(*std::max_element(own.begin(), own.end()));
  return radii;
}

// The share of points that lie in some ball of the set.
double share_inside(const Set& points, const Set& set, const std::vector<float>& radii,
                    const std::function<void(int64_t pairs)>& progress) {
  std::vector<char> inside(static_cast<size_t>(points.size()));
  for_distances(points, set, progress, [&](int64_t i, int64_t first, const std::vector<float>& distances) {
    for (size_t j = 0; j < distances.size() && !inside[static_cast<size_t>(i)]; ++j)
      inside[static_cast<size_t>(i)] = distances[j] <= radii[static_cast<size_t>(first) + j];
  });
  return static_cast<double>(std::count(inside.begin(), inside.end(), 1)) / static_cast<double>(points.size());
}

}  // namespace

PrecisionRecall precision_recall(const Tensor& samples, const Tensor& reference, int64_t neighbours,
                                 const std::function<void(double share)>& progress) {
  check(samples.shape().rank() == 2 && reference.shape().rank() == 2 && samples.size(1) == reference.size(1),
        "features of shapes {} and {} cannot be compared", to_string(samples.shape()),
        to_string(reference.shape()));
  check(samples.size(0) > neighbours && reference.size(0) > neighbours,
        "precision and recall need more than {} pictures on each side, not {} and {}", neighbours,
        samples.size(0), reference.size(0));
  const Set a(samples), b(reference);
  const auto n = static_cast<double>(a.size()), m = static_cast<double>(b.size());
  double done = 0;
  const auto advance = [&](int64_t pairs) {
    done += static_cast<double>(pairs);
    if (progress) progress(done / (n * n + m * m + 2 * n * m));
  };
  const std::vector<float> around_samples = radii_of(a, neighbours, advance);
  const std::vector<float> around_reference = radii_of(b, neighbours, advance);
  return {share_inside(a, b, around_reference, advance), share_inside(b, a, around_samples, advance)};
}

}  // namespace linnet
