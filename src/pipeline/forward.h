// One pass of a model on tensors from a file: to compare with other implementations, and to look inside.
#pragma once

#include "io/safetensors.h"
#include "models/dit.h"

namespace linnet {

/// The model's output for the file's tensors x (n, c, h, w) of a floating-point type, t (n) floating-point or
/// i64, y (n) i64. Throws Error naming the tensor that is missing, of another shape or type, or out of range.
Tensor forward_file(const DiT& model, const SafetensorsFile& input);

}  // namespace linnet
