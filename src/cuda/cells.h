// Kernels that do the same for every cell of a matrix, without dividing to find out which row it is in.
#pragma once

#include <algorithm>

#include "cuda/packs.h"

namespace linnet::cuda {

inline bool is_aligned(const void* at, size_t bytes) { return reinterpret_cast<uintptr_t>(at) % bytes == 0; }

/// Whether rows of `width` elements at `view` can be read in packs of n.
inline bool has_packs(View view, int64_t width, int64_t n) {
  return width % n == 0 && is_aligned(view.data, static_cast<size_t>(n) * size_of(view.dtype));
}

/// body(row, column) for each cell that is this thread's; down the rows first, so that what belongs to a column
/// is read once. In kernels that launch_cells() starts.
template <class Body>
__device__ __forceinline__ void for_cells(int64_t rows, int64_t columns, Body body) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
  const int64_t row_step = static_cast<int64_t>(gridDim.y) * blockDim.y;
  const int64_t column_step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; column < columns;
       column += column_step)
    for (int64_t row = first_row; row < rows; row += row_step) body(row, column);
}

/// Starts a kernel that walks over (rows, columns) with for_cells(): neighbouring threads in neighbouring
/// columns, enough of them to fill the card.
template <class... Params, class... Args>
void launch_cells(int64_t rows, int64_t columns, void (*kernel)(Params...), Args... args) {
  if (rows == 0 || columns == 0) return;
  constexpr int64_t threads = 256;
  int64_t width = 1;  // a warp's, unless there are too few rows for the block's other warps
  while (width < columns && width < warp_size) width *= 2;
  while (width < threads && threads / width >= 2 * rows) width *= 2;
  const int64_t height = threads / width, most = int64_t{32} * multiprocessors();
  const int64_t across = std::min(divide_up(columns, width), most);
  const int64_t down = std::min(divide_up(rows, height), divide_up(most, across));
  launch(kernel, dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)),
         dim3(static_cast<unsigned>(width), static_cast<unsigned>(height)), 0, args...);
}

}  // namespace linnet::cuda
