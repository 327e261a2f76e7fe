#include "ops/cross_entropy.h"

#include <cmath>

#include "core/tape.h"

namespace linnet::ops {
namespace {

// Replaces a row of logits by its softmax and returns −log of the label's share. Sums are f64: rows are short.
double softmax_in_place(float* row, int64_t classes, int64_t label) {
  const float largest = *std::max_element(row, row + classes);
  const double at_label = static_cast<double>(row[label] - largest);
  double sum = 0;
  for (int64_t i = 0; i < classes; ++i) sum += std::exp(static_cast<double>(row[i] - largest));
  for (int64_t i = 0; i < classes; ++i)
    row[i] = static_cast<float>(std::exp(static_cast<double>(row[i] - largest)) / sum);
  return std::log(sum) - at_label;
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) {
  check(logits.shape().rank() == 2 && logits.numel() > 0 && labels.shape() == Shape{logits.size(0)},
        "cross_entropy: logits {} and labels {} do not go together", to_string(logits.shape()),
        to_string(labels.shape()));
  const int64_t n = logits.size(0), classes = logits.size(1);
  const int64_t* label = labels.data<int64_t>();
  for (int64_t i = 0; i < n; ++i)
    check(label[i] >= 0 && label[i] < classes, "cross_entropy: label {} is outside {} classes", label[i],
          classes);
  Tensor shares = logits.clone();  // (n, classes), the softmax
  float* share = shares.mutable_data<float>();
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += softmax_in_place(share + i * classes, classes, label[i]);
  Tensor loss = Tensor::full({1}, static_cast<float>(total / static_cast<double>(n)));
  if (wants_grad(logits))
    record_backward(loss, [shares, labels, slot = logits.grad_slot(), n, classes](const Tensor& g) mutable {
      const float scale = g.item() / static_cast<float>(n);  // d loss / d logits = (softmax − one-hot) / n
      float* gradient = shares.mutable_data<float>();
      for (int64_t i = 0; i < n; ++i) gradient[i * classes + labels.data<int64_t>()[i]] -= 1.0f;
      for (int64_t i = 0; i < n * classes; ++i) gradient[i] *= scale;
      accumulate_grad(slot, shares);
    });
  return loss;
}

}  // namespace linnet::ops
