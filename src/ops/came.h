// One optimiser step of one parameter by CAME (Luo et al., arXiv 2307.02047): Adafactor's second moment, of
// which a matrix keeps only the means of rows and columns, and a confidence in the momentum that is kept
// likewise. With the moving average of the weights.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

struct CameStep {
  float lr, beta1, beta2, beta3, weight_decay;
  float ema_decay;
};

/// What CAME keeps of a parameter (..., rows, columns), each stack of leading dimensions by itself, all f32.
struct CameState {
  Tensor mean;                             ///< of the parameter's shape
  Tensor square;                           ///< of a parameter of one dimension: its shape; else undefined
  Tensor square_rows, square_columns;      ///< (..., rows) and (..., columns); undefined of one dimension
  Tensor residual_rows, residual_columns;  ///< likewise
};

/// All zero, for a parameter of that shape.
CameState fresh_came_state(const Shape& shape, const Device& device = {});

/// All f32 and on one device; gradient may be undefined, then it counts as zero. clip (1) is what it is
/// multiplied with first (ops/clip.h).
void came_step(const CameStep& settings, const Tensor& clip, Tensor& value, const Tensor& gradient,
               CameState& state, Tensor& ema);

}  // namespace linnet::ops
