// Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991), as ADM's suite computes them: a
// set's manifold is the union of balls around its members, each as large as the distance to its third nearest
// neighbour.
#pragma once

#include <functional>

#include "core/tensor.h"

namespace linnet {

constexpr int64_t manifold_neighbours = 3;  ///< ADM's

struct PrecisionRecall {
  double precision = 0;  ///< the share of samples that lie in the reference's manifold
  double recall = 0;     ///< the share of the reference that lies in the samples'
};

/// samples (n, d) and reference (m, d) f32. Distances are computed block by block, so that memory does not grow
/// with n·m; progress is called with the share that is done. Throws Error on sets of no more than `neighbours`
/// members.
PrecisionRecall precision_recall(const Tensor& samples, const Tensor& reference,
                                 int64_t neighbours = manifold_neighbours,
                                 const std::function<void(double share)>& progress = {});

}  // namespace linnet
