// The diffusion loss: each block sums a stretch of one picture's values, and one block then sums those, so that
// the order is always the same. The formulas are ops/diffusion_terms.h.
#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

using ops::GpuLoss;
using ops::LossSample;

constexpr int threads = 256, wide = 4, columns = 4;  // columns of `losses`
constexpr int64_t stretch = 2 * threads * wide;      // values of a picture that a block looks at

// What a block sums; as yet without what all of a picture's values have in common.
struct Sums {
  float squares = 0, nats = 0, noise = 0, variance = 0;
};

// What the derivative of each of these is multiplied with to be that of the total.
struct Shares {
  float squares, nats, noise, variance;

  __device__ Shares(const GpuLoss& in, const LossSample<float>& s) {
    const float each = 1.0f / (static_cast<float>(in.n) * static_cast<float>(in.batch));
    squares = 2.0f * s.weight * each;
    nats = each / std::numbers::ln2_v<float>;
    noise = squares * in.noise_weight;
    variance = 2.0f * each * in.variance_weight;
  }
};

template <int N>
__device__ Pack<float, N> read(const View& view, int64_t at) {
  const void* const from = static_cast<const float*>(view.data) + at;
  return *static_cast<const Pack<float, N>*>(from);
}
template <int N>
__device__ void write(const Pack<float, N>& values, float* at) {
  *static_cast<Pack<float, N>*>(static_cast<void*>(at)) = values;
}

// N neighbours of a prediction's first half, or of its second.
template <int N>
struct Half {
  Pack<float, N> value, taught, gradient;

  __device__ Half(const GpuLoss& in, int64_t at) {
    value = read<N>(in.prediction, at);
    if (in.teacher.data) taught = read<N>(in.teacher, at);
  }
  __device__ float square_of_difference(int j, float share) {
    const float difference = value.at[j] - taught.at[j];
    gradient.at[j] = fmaf(share, difference, gradient.at[j]);
    return difference * difference;
  }
  __device__ void keep(float* all, int64_t at) const {
    if (all) write(gradient, all + at);
  }
};

template <int N>
__device__ void look(const GpuLoss& in, const LossSample<float>& s, const Shares& shares, int64_t picture,
                     int64_t i, float* gradient, Sums& sums) {
  const int64_t from = picture * in.n + i, at = from + (in.learned ? picture * in.n : 0);
  const Pack<float, N> x0 = read<N>(in.x0, from), noise = read<N>(in.noise, from);
  Half<N> target(in, at);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float error = ops::target_error(s, target.value.at[j], x0.at[j], noise.at[j]);
    sums.squares = fmaf(error, error, sums.squares);
    target.gradient.at[j] = shares.squares * error;
    if (in.teacher.data) sums.noise += target.square_of_difference(j, shares.noise);
  }
  target.keep(gradient, at);
  if (!in.learned) return;
  const Pack<float, N> xt = read<N>(in.xt, from);
  Half<N> variance(in, at + in.n);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const ops::LossTerm<float> bound =
        ops::variational_bound(s, target.value.at[j], variance.value.at[j], x0.at[j], xt.at[j]);
    sums.nats += bound.value;
    variance.gradient.at[j] = shares.nats * bound.slope;
    if (in.teacher.data) sums.variance += variance.square_of_difference(j, shares.variance);
  }
  variance.keep(gradient, at + in.n);
}

// Reads what there is once, and writes the gradient. sums (batch, stretches, 4).
template <int N>
__global__ void __launch_bounds__(threads)
    look_at_pictures(GpuLoss in, int64_t stretches, float* sums, float* gradient) {
  const int64_t picture = blockIdx.x / stretches, begin = blockIdx.x % stretches * stretch;
  const int64_t end = begin + stretch < in.n ? begin + stretch : in.n;
  const LossSample<float> s = in.samples[picture];
  const Shares shares(in, s);
  Sums own;
  for (int64_t i = begin + threadIdx.x * N; i < end; i += threads * N)
    look<N>(in, s, shares, picture, i, gradient, own);
  const Pack<float, columns> all{
      {block_sum(own.squares), block_sum(own.nats), block_sum(own.noise), block_sum(own.variance)}};
  if (threadIdx.x == 0) write(all, sums + int64_t{blockIdx.x} * columns);
}

// One block: losses (batch, 4), and total of them.
__global__ void sum_up(GpuLoss in, int64_t stretches, const float* sums, float* losses, float* total) {
  float weighted = 0;
  for (int64_t i = threadIdx.x; i < in.batch * columns; i += blockDim.x) {
    const int64_t picture = i / columns, column = i % columns;
    float sum = 0;
    for (int64_t j = 0; j < stretches; ++j) sum += sums[(picture * stretches + j) * columns + column];
    const float counted = column % 2 == 0 ? in.samples[picture].weight : 1.0f;  // of target and its distance
    const float unit = column == 1 ? std::numbers::ln2_v<float> : 1.0f;
    const float loss = counted * sum / (unit * static_cast<float>(in.n));
    losses[i] = loss;
    weighted += (column == 2 ? in.noise_weight : column == 3 ? in.variance_weight : 1.0f) * loss;
  }
  weighted = block_sum(weighted);
  if (threadIdx.x == 0) *total = weighted / static_cast<float>(in.batch);
}

bool in_packs(const GpuLoss& in, View gradient) {
  bool fit = in.n % wide == 0;
  for (const View& view : {in.prediction, in.x0, in.xt, in.noise, in.teacher, gradient})
    fit = fit && reinterpret_cast<uintptr_t>(view.data) % sizeof(Pack<float, wide>) == 0;
  return fit;
}

void diffusion(const GpuLoss& in, View losses, View total, View gradient) {
  const int64_t stretches = divide_up(in.n, stretch);
  const Scratch sums(static_cast<size_t>(in.batch * stretches * columns) * sizeof(float));
  launch(in_packs(in, gradient) ? look_at_pictures<wide> : look_at_pictures<1>,
         dim3(static_cast<unsigned>(in.batch * stretches)), dim3(threads), 0, in, stretches, sums.as<float>(),
         gradient.as<float>());
  launch(sum_up, dim3(1), dim3(1024), 0, in, stretches, sums.as<float>(), losses.as<float>(),
         total.as<float>());
}

__global__ void multiply_with(const float* x, const float* s, float* y, int64_t n) {
  const float factor = *s;
  for (int64_t i = thread_number(); i < n; i += thread_count()) y[i] = factor * x[i];
}

void scale_by(View x, View s, View y, int64_t n) {
  launch_over(n, multiply_with, x.as<float>(), s.as<float>(), y.as<float>(), n);
}

}  // namespace

void fill(ops::LossKernels& table) {
  table.diffusion = diffusion;
  table.scale_by = scale_by;
}

}  // namespace linnet::cuda
