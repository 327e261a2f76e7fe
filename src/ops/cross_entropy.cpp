#include "ops/cross_entropy.h"

#include <cmath>

#include "core/tape.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"

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

Tensor on_cpu(const Tensor& logits, const Tensor& labels) {
  const int64_t n = logits.size(0), classes = logits.size(1);
  const int64_t* label = labels.data<int64_t>();
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

Tensor on_gpu(const Tensor& logits, const Tensor& labels) {
  const int64_t n = logits.size(0), classes = logits.size(1);
  Tensor shares = Tensor::empty(logits.shape(), DType::f32, logits.device());
  Tensor loss = Tensor::empty({1}, DType::f32, logits.device());
  gpu_kernels().cross_entropy.forward(f32_view(logits), labels.view(), shares.view(), loss.view(), n, classes);
  if (wants_grad(logits))
    record_backward(loss, [shares, labels, slot = logits.grad_slot(), n, classes](const Tensor& g) {
      Tensor d = Tensor::empty(shares.shape(), DType::f32, shares.device());
      gpu_kernels().cross_entropy.backward(g.to(DType::f32).view(), shares.view(), labels.view(), d.view(), n,
                                           classes);
      accumulate_grad(slot, d);
    });
  return loss;
}

// Labels that the GPU has are not waited for.
void check_labels(const Tensor& labels, int64_t classes) {
  check(labels.dtype() == DType::i64, "cross_entropy: labels are i64, not {}", name_of(labels.dtype()));
  if (labels.on_gpu()) return;
  for (const int64_t label : labels.values<int64_t>())
    check(label >= 0 && label < classes, "cross_entropy: label {} is outside {} classes", label, classes);
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) {
  check(logits.shape().rank() == 2 && logits.numel() > 0 && labels.shape() == Shape{logits.size(0)},
        "cross_entropy: logits {} and labels {} do not go together", to_string(logits.shape()),
        to_string(labels.shape()));
  check_labels(labels, logits.size(1));
  const Tensor right = labels.to(logits.device());
  return logits.on_gpu() ? on_gpu(logits, right) : on_cpu(logits, right);
}

}  // namespace linnet::ops
