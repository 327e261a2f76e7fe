// CPU kernel behind ops/wide_attention.h.
#pragma once

#include "core/tensor.h"

namespace linnet::ops::cpu {

/// scores (rows, columns) f32, which are overwritten → softmax(scale·scores) over each row, in dtype.
void softmax_rows(float* scores, int64_t rows, int64_t columns, float scale, void* probabilities, DType dtype);

}  // namespace linnet::ops::cpu
