// DiT's training loss: mean square of the error, plus, for a learned variance, the variational bound in bits
// with the predicted mean held fixed (Nichol & Dhariwal 2021, L_hybrid as facebookresearch/DiT weighs it: 1 to 1).
#pragma once

#include "diffusion/prediction.h"

namespace linnet {

struct DiffusionLoss {
  Tensor total;                   ///< one element; differentiable in the prediction
  std::vector<double> mse, bound; ///< of each picture; bound is empty without a learned variance
};

/// prediction (n, 2c or c, h, w) of `kind` for x_t; x0, x_t, noise (n, c, h, w); t (n) i64.
DiffusionLoss diffusion_loss(const NoiseSchedule& schedule, Prediction kind, const Tensor& prediction, const Tensor& x0,
                             const Tensor& xt, const Tensor& noise, const Tensor& t);

}  // namespace linnet
