// One optimiser step of one parameter, fused: AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW) and the
// moving average of the weights.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

struct AdamWStep {
  float lr, beta1, beta2, epsilon, weight_decay;
  int64_t step;  ///< counted from 1
  float ema_decay;
};

/// All f32, of one shape and on one device; gradient may be undefined, then it counts as zero. clip (1) is what
/// it is multiplied with first (ops/clip.h).
void adamw_step(const AdamWStep& settings, const Tensor& clip, Tensor& value, const Tensor& gradient,
                Tensor& mean, Tensor& square, Tensor& ema);

}  // namespace linnet::ops
