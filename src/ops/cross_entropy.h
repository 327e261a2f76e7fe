// The loss of a classifier: −log softmax(logits) at the right class, averaged over the rows.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// logits (n, classes) f32, labels (n) i64. Returns (1) f32; throws Error on a label outside 0..classes-1.
Tensor cross_entropy(const Tensor& logits, const Tensor& labels);

}  // namespace linnet::ops
