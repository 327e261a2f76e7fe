// What the operations of softmax attention tell the GPU's kernels.
#pragma once

#include <string_view>

#include "ops/element.h"
#include "ops/gpu_kernels.h"

namespace linnet::ops {

inline ColumnView column_view(const Columns& x) { return {x.tensor.view(), x.tensor.shape()[-1], x.first}; }

/// Refuses heads for which there is no kernel.
inline void check_gpu_head(std::string_view operation, const Tensor& x, int64_t head_size) {
  check(!x.on_gpu() || head_size <= GpuAttention::largest_head,
        "{}: heads of {} channels are more than the GPU's kernels take ({}); the CPU takes any", operation,
        head_size, GpuAttention::largest_head);
}

}  // namespace linnet::ops
