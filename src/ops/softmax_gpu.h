// What the operations of softmax attention tell the GPU's kernels.
#pragma once

#include "ops/element.h"
#include "ops/gpu_kernels.h"

namespace linnet::ops {

inline ColumnView column_view(const Columns& x) { return {x.tensor.view(), x.tensor.shape()[-1], x.first}; }

}  // namespace linnet::ops
