// DiT's training loss: mean square of the error (of a predicted picture as the error of the v that it means, up
// to a limit), plus, for a learned variance, the variational bound in bits with the predicted mean held fixed
// (Nichol & Dhariwal 2021, L_hybrid as facebookresearch/DiT weighs it: 1 to 1). With a teacher, LiT's hybrid
// distillation too (arXiv 2501.12976, section 3.3): the mean square of what student and teacher predict
// differently, of the noise and of the variance's raw channels, each with its weight.
#pragma once

#include "diffusion/prediction.h"

namespace linnet {

/// What a teacher says of the same x_t, t and condition.
struct Teaching {
  Tensor prediction = {};          ///< as the student's; undefined: no teacher
  double noise = 0, variance = 0;  ///< weights of the two terms (λ₁, λ₂)
};

struct DiffusionLoss {
  Tensor total;  ///< one element, where the prediction lies; differentiable in it
  /// (n, 4) f32, beside it, of each picture: mse, bound, and unweighted from the teacher the distances in noise
  /// and in variance. 0 where there is none.
  Tensor losses;
  bool learned = false, taught = false;  ///< whether a variance is learned, and whether there is a teacher
};

/// prediction (n, 2c or c, h, w) of `kind` for x_t; x0, x_t, noise (n, c, h, w) on any device; t (n) i64, which
/// is best on the CPU.
DiffusionLoss diffusion_loss(const NoiseSchedule& schedule, Prediction kind, const Tensor& prediction,
                             const Tensor& x0, const Tensor& xt, const Tensor& noise, const Tensor& t,
                             const Teaching& teaching = {});

}  // namespace linnet
