// Sums over rows, for kernels of other operations whose partial sums have to be added up.
#pragma once

#include "core/gpu.h"

namespace linnet::cuda {

/// x (groups, rows, columns) of any floating-point type → y (groups, columns) f32, times factor; the same order
/// always.
void sum_rows_of_groups(View x, View y, int64_t groups, int64_t rows, int64_t columns, float factor = 1.0f);

}  // namespace linnet::cuda
