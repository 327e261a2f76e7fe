// A convolution in parts: cuDNN counts values in 32 bits, and a picture of 4,096 pixels a side has more of
// them.
#pragma once

#include <algorithm>

#include "ops/gpu_kernels.h"

namespace linnet::cuda {

/// What of a convolution makes `count` rows of its result from `first` on. Its x begins at row `from` of the
/// whole's.
struct ConvRows {
  ops::GpuConv conv;
  int64_t from;
};

inline ConvRows rows_of(const ops::GpuConv& whole, int64_t first, int64_t count) {
  const int64_t begin = first * whole.stride - whole.top;
  const int64_t end = (first + count - 1) * whole.stride + whole.kernel_height - whole.top;
  const int64_t from = std::max<int64_t>(begin, 0), to = std::min(end, whole.height);
  ConvRows rows{whole, from};
  rows.conv.height = to - from;
  rows.conv.out_height = count;
  rows.conv.top = from - begin;
  rows.conv.bottom = end - to;
  return rows;
}

/// part(convolution, its first value of x, of y) for as many pictures at a time as have no more than `most`
/// values, their zeros counted and their results; of a picture that has more by itself, for fewer of its rows.
template <class Part>
void in_parts(const ops::GpuConv& c, int64_t most, const Part& part, int64_t x = 0, int64_t y = 0) {
  const int64_t in = (c.height + c.top + c.bottom) * (c.width + c.left + c.right) * c.in;
  const int64_t row = c.out_width * c.out, out = c.out_height * row;
  if (c.n * std::max(in, out) <= most || c.n * c.out_height <= 1) return part(c, x, y);
  if (c.n > 1) {
    ops::GpuConv some = c;
    const int64_t at_once = std::max<int64_t>(1, most / std::max<int64_t>({1, in, out}));
    for (int64_t first = 0; first < c.n; first += at_once) {
      some.n = std::min(at_once, c.n - first);
      in_parts(some, most, part, x + first * c.height * c.width * c.in, y + first * out);
    }
    return;
  }
  const int64_t half = c.out_height / 2;
  for (const auto& [first, count] : {std::pair(int64_t{0}, half), std::pair(half, c.out_height - half)}) {
    const ConvRows rows = rows_of(c, first, count);
    in_parts(rows.conv, most, part, x + rows.from * c.width * c.in, y + first * row);
  }
}

}  // namespace linnet::cuda
