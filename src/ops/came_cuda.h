// CAME's step on the GPU (ops/came_cuda.cu).
#pragma once

#include "ops/gpu_kernels.h"

namespace linnet::cuda {

void came(const ops::GpuCame& s, View clip, View value, View gradient, View mean, View square, View square_rows,
          View square_columns, View residual_rows, View residual_columns, View ema, int64_t count, int64_t rows,
          int64_t columns, int64_t n);

}  // namespace linnet::cuda
