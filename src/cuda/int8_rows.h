// Our own kernels of the table's products (ops/int8_linear_cuda.cu); the rest of it is a library's.
#pragma once

#include "core/gpu.h"

namespace linnet::cuda {

void quantize_rows(View x, View values, View scales, int64_t rows, int64_t columns);
void dequantize_rows(View values, View scales, View y, int64_t rows, int64_t columns);

}  // namespace linnet::cuda
