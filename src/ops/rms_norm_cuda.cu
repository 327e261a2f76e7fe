// T5's norm: a block a row, which reads it once from memory and once more from the cache.
#include "cuda/kernels.h"
#include "ops/norm_cuda.h"

namespace linnet::cuda {
namespace {

constexpr int most_threads = 256;

// 1/√(mean(x²) + ε) of a row, in every thread.
__device__ float inverse_deviation(const float* x, int64_t d, float epsilon) {
  float squares = 0;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) squares = fmaf(x[i], x[i], squares);
  return 1.0f / sqrtf(block_sum(squares) / static_cast<float>(d) + epsilon);
}

template <class Y>
__global__ void rms_rows(const float* x, const float* weight, float epsilon, Y* y, int64_t d) {
  x += blockIdx.x * d;
  y += blockIdx.x * d;
  const float inverse = inverse_deviation(x, d, epsilon);
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) assign(y[i], x[i] * inverse * weight[i]);
}

// With n = x·s, s = 1/√(mean x² + ε): dx = s·(w·g − n·mean(w·g·n)), and weight_sums = Σ g·n of a block's rows.
template <class G>
__global__ void rms_backward_rows(const float* x, const float* weight, const G* g, float epsilon, float* dx,
                                  float* weight_sums, RowParts rows) {
  const int64_t d = rows.d, first = blockIdx.x * rows.part, end = min(first + rows.part, rows.tokens);
  weight_sums += blockIdx.x * d;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) weight_sums[i] = 0;
  for (int64_t row = first; row < end; ++row) {
    const float* const in = x + row * d;
    const G* const gradient = g + row * d;
    const float s = inverse_deviation(in, d, epsilon);
    float along = 0;
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
      const float gi = to_float(gradient[i]);
      along = fmaf(gi * weight[i], in[i], along);
      weight_sums[i] = fmaf(gi, in[i] * s, weight_sums[i]);
    }
    const float share = block_sum(along) * s * s / static_cast<float>(d);
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x)
      dx[row * d + i] = s * (to_float(gradient[i]) * weight[i] - in[i] * share);
  }
}

}  // namespace

void rms(View x, View weight, float epsilon, View y, int64_t rows, int64_t d) {
  with_float(y.dtype, [&](auto* out) {
    using Y = Pointee<decltype(out)>;
    launch(rms_rows<Y>, dim3(static_cast<unsigned>(rows)), dim3(threads_for(d, most_threads)), 0, x.as<float>(),
           weight.as<float>(), epsilon, y.as<Y>(), d);
  });
}

void rms_backward(View x, View weight, View g, float epsilon, View dx, View dweight, int64_t rows, int64_t d) {
  const RowParts parts(1, rows, d);
  const PartialSums weight_sums(parts, dweight);
  with_float(g.dtype, [&](auto* gradient) {
    using G = Pointee<decltype(gradient)>;
    launch(rms_backward_rows<G>, dim3(parts.blocks()), dim3(threads_for(d, most_threads)), 0, x.as<float>(),
           weight.as<float>(), g.as<G>(), epsilon, dx.as<float>(), weight_sums.at(), parts);
  });
  weight_sums.add_up();
}

}  // namespace linnet::cuda
