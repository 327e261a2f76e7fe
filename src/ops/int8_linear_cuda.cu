#include "cuda/int8_rows.h"
#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

constexpr int threads = 256;
constexpr float largest_float = 3.402823466e38f, smallest_normal = 1.175494351e-38f;

// A block a row: the largest magnitude, then the rounded values. The row is read twice, the second time from
// the caches.
template <class T>
__global__ void quantize(const T* x, int8_t* values, float* scales, int64_t columns) {
  __shared__ float largest[threads / warp_size];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * columns;
  float own = 0.0f;
  for (int64_t i = threadIdx.x; i < columns; i += threads) {
    const float magnitude = fabsf(to_float(x[first + i]));
    own = magnitude <= largest_float ? fmaxf(own, magnitude) : INFINITY;  // a maximum would forget a NaN
  }
  own = warp_max(own);
  if (threadIdx.x % warp_size == 0) largest[threadIdx.x / warp_size] = own;
  __syncthreads();
  for (int i = 0; i < threads / warp_size; ++i) own = fmaxf(own, largest[i]);
  // A subnormal scale has an infinite inverse, or nearly so: such rows are zero.
  const float scale = own / 127.0f < smallest_normal ? 0.0f : own / 127.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  for (int64_t i = threadIdx.x; i < columns; i += threads) {
    const float rounded = rintf(to_float(x[first + i]) * inverse);
    values[first + i] = static_cast<int8_t>(fminf(fmaxf(rounded, -127.0f), 127.0f));
  }
  if (threadIdx.x == 0) scales[blockIdx.x] = own == INFINITY ? NAN : scale;
}

// One value a thread: 1 byte read and up to 4 written, of neighbours.
template <class T>
__global__ void dequantize(const int8_t* values, const float* scales, T* y, int64_t columns, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count())
    assign(y[i], static_cast<float>(values[i]) * scales[i / columns]);
}

constexpr int together = 8;

// The same, 8 neighbours of a row at once.
template <class T>
__global__ void dequantize_packs(const Pack<int8_t, together>* values, const float* scales,
                                 Pack<T, together>* y, int64_t columns, int64_t packs) {
  for (int64_t p = thread_number(); p < packs; p += thread_count()) {
    const Pack<int8_t, together> in = values[p];
    const float scale = scales[p * together / columns];
    Pack<T, together> out;
#pragma unroll
    for (int i = 0; i < together; ++i) assign(out.at[i], static_cast<float>(in.at[i]) * scale);
    y[p] = out;
  }
}

bool aligned(const void* address, size_t to) { return reinterpret_cast<uintptr_t>(address) % to == 0; }

}  // namespace

void quantize_rows(View x, View values, View scales, int64_t rows, int64_t columns) {
  with_float(x.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch(quantize<T>, dim3(static_cast<unsigned>(rows)), dim3(threads), 0, x.as<T>(), values.as<int8_t>(),
           scales.as<float>(), columns);
  });
}

void dequantize_rows(View values, View scales, View y, int64_t rows, int64_t columns) {
  const int64_t n = rows * columns;
  with_float(y.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    using In = Pack<int8_t, together>;
    using Out = Pack<T, together>;
    if (columns % together == 0 && aligned(values.data, alignof(In)) && aligned(y.data, alignof(Out)))
      launch_over(n / together, dequantize_packs<T>, values.as<In>(), scales.as<float>(), y.as<Out>(), columns,
                  n / together);
    else
      launch_over(n, dequantize<T>, values.as<int8_t>(), scales.as<float>(), y.as<T>(), columns, n);
  });
}

}  // namespace linnet::cuda
