// One optimiser step, fused: AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW) and the
// moving average of the weights.
#pragma once

#include "ops/optimized.h"

namespace linnet::ops {

struct AdamWStep {
  float lr, beta1, beta2, epsilon, weight_decay;
  int64_t step;  ///< counted from 1
  float ema_decay;
};

/// clip (1) is what gradients are multiplied with first (ops/clip.h). Throws Error when sizes differ.
void adamw_step(const AdamWStep& settings, const Tensor& clip, const std::vector<Optimized>& parameters);

}  // namespace linnet::ops
