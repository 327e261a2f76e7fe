// One optimiser step of matrices by Muon (Jordan et al. 2024; as torch.optim.Muon with Nesterov's momentum):
// the momentum, with all its singular values brought near 1, is the update. With the moving average of the
// weights.
#pragma once

#include "ops/optimized.h"

namespace linnet::ops {

struct MuonStep {
  float lr;  ///< as AdamW's: an update's root mean square is 0.2 of it (Liu et al., arXiv 2502.16982)
  float momentum, weight_decay;
  float ema_decay;
};

/// The matrix (rows, columns) f32 with the singular values that it has brought into about 0.7 to 1.2, by five
/// steps of Newton and Schulz whose products are in dtype, bf16 or f32. Zero stays zero.
Tensor orthogonalized(const Tensor& matrix, DType products);

/// Of matrices, which keep no squares. clip (1) is what gradients are multiplied with first (ops/clip.h). On a
/// GPU matrices of one shape take each product of a step together. Throws Error when one is no matrix, or sizes
/// differ.
void muon_step(const MuonStep& settings, const Tensor& clip, const std::vector<Optimized>& matrices,
               DType products);

}  // namespace linnet::ops
