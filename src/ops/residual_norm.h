// The residual stream of a transformer of pre-norm blocks: a branch joins it, and what comes next begins with
// the norm of the sum. On a GPU both are one kernel, which reads the sum no second time.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

/// A residual stream whose last branch has not joined it yet: x + gate·branch. Without gate, x + branch;
/// without branch, x.
struct Residual {
  Tensor x;       ///< (batch, tokens, d) f32
  Tensor gate;    ///< (batch, d) f32, or none
  Tensor branch;  ///< like x, of any floating-point type, or none; without gate, f32
};

/// x + gate·branch.
Tensor joined(const Residual& stream);

struct JoinedNorm {
  Tensor x;       ///< joined(stream)
  Tensor normed;  ///< layer_norm_modulate() of it
};

/// shift, scale (batch, d) f32. The same numbers as by the two operations, one after the other.
JoinedNorm join_and_norm(Residual stream, const Tensor& shift, const Tensor& scale, float epsilon,
                         DType out_dtype);

}  // namespace linnet::ops
