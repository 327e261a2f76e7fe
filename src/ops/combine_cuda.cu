// What samplers do between two looks at the model: each value is read once and written once, in 16 bytes at a
// time where they lie so.
#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

using ops::GpuTerm;

constexpr int most_terms = 4;

struct Terms {
  const float* x[most_terms];
  float factor[most_terms];
};

template <int N>
using Floats = Pack<float, N>;

template <int N>
__device__ Floats<N> load(const float* from, int64_t pack) {
  return static_cast<const Floats<N>*>(static_cast<const void*>(from))[pack];
}
template <int N>
__device__ void store(const Floats<N>& values, float* to, int64_t pack) {
  static_cast<Floats<N>*>(static_cast<void*>(to))[pack] = values;
}

// 4·(Count + 1) bytes a value.
template <int Count, int N>
__global__ void combine_all(Terms terms, bool clipped, float* y, int64_t packs) {
  for (int64_t i = thread_number(); i < packs; i += thread_count()) {
    Floats<N> sum{};
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      const Floats<N> x = load<N>(terms.x[k], i);
#pragma unroll
      for (int j = 0; j < N; ++j) sum.at[j] = fmaf(terms.factor[k], x.at[j], sum.at[j]);
    }
    if (clipped)
#pragma unroll
      for (int j = 0; j < N; ++j) sum.at[j] = sum.at[j] < -1.0f ? -1.0f : sum.at[j] > 1.0f ? 1.0f : sum.at[j];
    store(sum, y, i);
  }
}

// 12 bytes a value that is combined, 8 of others.
template <int N>
__global__ void combine_in_rows(const float* a, const float* b, const float* factors, float* y, int64_t packs,
                                int64_t width, int64_t b_width) {
  for (int64_t i = thread_number(); i < packs; i += thread_count()) {
    const int64_t row = i / width, column = i % width;
    Floats<N> sum = load<N>(a, i);
    if (column < b_width) {
      const Floats<N> other = load<N>(b, row * b_width + column);
      const float first = factors[2 * row], second = factors[2 * row + 1];
#pragma unroll
      for (int j = 0; j < N; ++j) sum.at[j] = fmaf(second, other.at[j], first * sum.at[j]);
    }
    store(sum, y, i);
  }
}

// 12 bytes a value that is guided, 8 of others.
template <int N>
__global__ void guide_rows(const float* prediction, float scale, int64_t guided, float* y, int64_t packs,
                           int64_t width) {
  for (int64_t i = thread_number(); i < packs; i += thread_count()) {
    Floats<N> wanted = load<N>(prediction, i);
    if (i % width < guided) {
      const Floats<N> none = load<N>(prediction, packs + i);
#pragma unroll
      for (int j = 0; j < N; ++j) wanted.at[j] = fmaf(scale, wanted.at[j] - none.at[j], none.at[j]);
    }
    store(wanted, y, i);
  }
}

// 16 bytes a value.
template <int N>
__global__ void add_noise_of(const float* mean, const float* v, const float* noise, float low, float high,
                             float* y, int64_t packs) {
  for (int64_t i = thread_number(); i < packs; i += thread_count()) {
    Floats<N> sum = load<N>(mean, i);
    const Floats<N> part = load<N>(v, i), added = load<N>(noise, i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float f = 0.5f * (part.at[j] + 1.0f);
      sum.at[j] = fmaf(__expf(0.5f * fmaf(f, high, (1.0f - f) * low)), added.at[j], sum.at[j]);
    }
    store(sum, y, i);
  }
}

constexpr int wide = 4;

template <class... Sizes>
bool in_packs(std::initializer_list<View> views, Sizes... sizes) {
  bool fit = ((sizes % wide == 0) && ...);
  for (const View& view : views)
    fit = fit && reinterpret_cast<uintptr_t>(view.data) % sizeof(Floats<wide>) == 0;
  return fit;
}

template <int Count>
void combine_counted(const Terms& terms, bool clipped, View y, bool packs, int64_t n) {
  if (packs)
    launch_over(n / wide, combine_all<Count, wide>, terms, clipped, y.as<float>(), n / wide);
  else
    launch_over(n, combine_all<Count, 1>, terms, clipped, y.as<float>(), n);
}

void combine(const GpuTerm* given, int count, bool clipped, View y, int64_t n) {
  Terms terms{};
  bool packs = in_packs({y}, n);
  for (int i = 0; i < count; ++i) {
    terms.x[i] = given[i].x.as<float>();
    terms.factor[i] = given[i].factor;
    packs = packs && in_packs({given[i].x}, n);
  }
  switch (count) {
    case 1: return combine_counted<1>(terms, clipped, y, packs, n);
    case 2: return combine_counted<2>(terms, clipped, y, packs, n);
    case 3: return combine_counted<3>(terms, clipped, y, packs, n);
    case 4: return combine_counted<4>(terms, clipped, y, packs, n);
    default: fail("the GPU combines 1 to 4 tensors");
  }
}

void combine_rows(View a, View b, View factors, View y, int64_t samples, int64_t width, int64_t b_width) {
  const bool packs = in_packs({a, b, y}, width, b_width);
  const int64_t by = packs ? wide : 1, n = samples * width / by;
  launch_over(n, packs ? combine_in_rows<wide> : combine_in_rows<1>, a.as<float>(), b.as<float>(),
              factors.as<float>(), y.as<float>(), n, width / by, b_width / by);
}

void guide(View prediction, float scale, int64_t guided, View y, int64_t samples, int64_t width) {
  const bool packs = in_packs({prediction, y}, width, guided);
  const int64_t by = packs ? wide : 1, n = samples * width / by;
  launch_over(n, packs ? guide_rows<wide> : guide_rows<1>, prediction.as<float>(), scale, guided / by,
              y.as<float>(), n, width / by);
}

void add_learned_noise(View mean, View v, View noise, float low, float high, View y, int64_t n) {
  const bool packs = in_packs({mean, v, noise, y}, n);
  const int64_t by = packs ? wide : 1;
  launch_over(n / by, packs ? add_noise_of<wide> : add_noise_of<1>, mean.as<float>(), v.as<float>(),
              noise.as<float>(), low, high, y.as<float>(), n / by);
}

}  // namespace

void fill(ops::CombineKernels& table) { table = {combine, combine_rows, guide, add_learned_noise}; }

}  // namespace linnet::cuda
