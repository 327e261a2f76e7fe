// Kernels that do the same for every element: y[i] = f(x[i], ...), in f32, whatever the tensors' types. Each
// element is read and written once, as many at a time as 16 bytes hold where the memory is aligned.
#pragma once

#include <algorithm>

#include "cuda/cells.h"

namespace linnet::cuda {

template <int N, class F, class Y, class... X>
__global__ void map_packs(F f, int64_t packs, Y* y, const X*... x) {
  for (int64_t i = thread_number(); i < packs; i += thread_count()) {
    Pack<Y, N> result;
    const auto each = [&](const auto&... from) {
#pragma unroll
      for (int k = 0; k < N; ++k) assign(result.at[k], f(to_float(from.at[k])...));
    };
    each(load_pack<N>(x + N * i)...);
    store_pack(y + N * i, result);
  }
}

/// f: a type with a __device__ operator() of as many floats. y may be one of the x.
template <class F, class Y, class... X>
void map(F f, int64_t n, Y* y, const X*... x) {
  constexpr size_t largest = std::max({sizeof(Y), sizeof(X)...});
  constexpr int width = largest >= 8 ? 1 : 16 / static_cast<int>(largest);
  const bool aligned = is_aligned(y, width * sizeof(Y)) && (is_aligned(x, width * sizeof(X)) && ...);
  const int64_t packed = aligned ? n / width : 0, rest = n - packed * width, from = packed * width;
  if (packed > 0) launch_over(packed, map_packs<width, F, Y, X...>, f, packed, y, x...);
  if (rest > 0) launch_over(rest, map_packs<1, F, Y, X...>, f, rest, y + from, (x + from)...);
}

}  // namespace linnet::cuda
