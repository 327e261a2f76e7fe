// Modulated layer norm. Forward reads x and writes y, each once: a row is held in the registers of a warp, or
// of a block. Backward reads g and x and writes dx, each once, and sums over rows as it goes: a thread owns
// four columns of its block's rows. Any other width takes the plain kernels, which find a row's later readings
// in the cache.
#include "cuda/cells.h"
#include "cuda/kernels.h"
#include "cuda/packs.h"
#include "ops/norm_cuda.h"

namespace linnet::cuda {
namespace {

constexpr int block_threads = 256;

template <int Threads>
__device__ __forceinline__ float row_sum(float x) {
  if constexpr (Threads == warp_size)
    return warp_sum(x);
  else
    return block_sum(x);
}

// Deviations are taken from a row's first value before its mean is formed: of values close together that
// difference is exact, while a mean in f32 could be off by more than their deviation. statistics: mean less
// first value, and 1/σ.
template <int Packs, int Threads, class X, class Y>
__global__ void __launch_bounds__(block_threads, 2)
    modulate_packs(const X* __restrict__ x, const float* __restrict__ shift, const float* __restrict__ scale,
                   float epsilon, Y* __restrict__ y, float* __restrict__ statistics, int64_t rows,
                   int64_t tokens, int d) {
  const int thread = static_cast<int>(threadIdx.x) % Threads, packs = d / pack_width;
  const int64_t row =
      static_cast<int64_t>(blockIdx.x) * (block_threads / Threads) + static_cast<int>(threadIdx.x) / Threads;
  if (row >= rows) return;  // whole warps
  x += row * d;
  y += row * d;
  const float first = to_float(x[0]), share = 1.0f / static_cast<float>(d);
  float v[Packs][pack_width], sum = 0;
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const int at = thread + p * Threads;
    if (at < packs) {
      const auto values = load_pack<pack_width>(x + at * pack_width);
#pragma unroll
      for (int i = 0; i < pack_width; ++i) v[p][i] = to_float(values.at[i]) - first;
    }
  }
#pragma unroll
  for (int p = 0; p < Packs; ++p)
    if (thread + p * Threads < packs) sum += v[p][0] + v[p][1] + (v[p][2] + v[p][3]);
  const float mean = row_sum<Threads>(sum) * share;
  float squares = 0;
#pragma unroll
  for (int p = 0; p < Packs; ++p)
    if (thread + p * Threads < packs)
#pragma unroll
      for (int i = 0; i < pack_width; ++i) {
        v[p][i] -= mean;
        squares = fmaf(v[p][i], v[p][i], squares);
      }
  const float inverse = 1.0f / sqrtf(row_sum<Threads>(squares) * share + epsilon);
  if (thread == 0) store_pack<2>(statistics + 2 * row, {{mean, inverse}});
  shift += row / tokens * d;
  scale += row / tokens * d;
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const int at = thread + p * Threads;
    if (at >= packs) continue;
    const auto gain = load_pack<pack_width>(scale + at * pack_width);
    const auto offset = load_pack<pack_width>(shift + at * pack_width);
    Pack<Y, pack_width> result;
#pragma unroll
    for (int i = 0; i < pack_width; ++i)
      assign(result.at[i], fmaf(v[p][i] * inverse, gain.at[i] + 1.0f, offset.at[i]));
    store_pack(y + at * pack_width, result);
  }
}

// The same of any width: a warp a row.
template <class X, class Y>
__global__ void modulate_plain(const X* x, const float* shift, const float* scale, float epsilon, Y* y,
                               float* statistics, int64_t rows, int64_t tokens, int64_t d) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const int64_t row = thread_number() / warp_size, sample = row / tokens;
  if (row >= rows) return;  // whole warps
  x += row * d;
  const float first = to_float(x[0]), share = 1.0f / static_cast<float>(d);
  float sum = 0, squares = 0;
  for (int64_t i = lane; i < d; i += warp_size) sum += to_float(x[i]) - first;
  const float mean = warp_sum(sum) * share;
  for (int64_t i = lane; i < d; i += warp_size) {
    const float v = to_float(x[i]) - first - mean;
    squares = fmaf(v, v, squares);
  }
  const float inverse = 1.0f / sqrtf(warp_sum(squares) * share + epsilon);
  if (lane == 0) {
    statistics[2 * row] = mean;
    statistics[2 * row + 1] = inverse;
  }
  for (int64_t i = lane; i < d; i += warp_size)
    assign(y[row * d + i], fmaf((to_float(x[i]) - first - mean) * inverse, scale[sample * d + i] + 1.0f,
                                shift[sample * d + i]));
}

template <int Packs, int Threads, class X, class Y>
void launch_packs(View x, View shift, View scale, float epsilon, View y, View statistics, int64_t rows,
                  int64_t tokens, int64_t d) {
  const int64_t blocks = divide_up(rows, block_threads / Threads);
  launch(modulate_packs<Packs, Threads, X, Y>, dim3(static_cast<unsigned>(blocks)), dim3(block_threads), 0,
         x.as<X>(), shift.as<float>(), scale.as<float>(), epsilon, y.as<Y>(), statistics.as<float>(), rows,
         tokens, static_cast<int>(d));
}

template <class X, class Y>
void modulate_typed(View x, View shift, View scale, float epsilon, View y, View statistics, int64_t rows,
                    int64_t tokens, int64_t d) {
  const auto go = [&](auto kernel) { kernel(x, shift, scale, epsilon, y, statistics, rows, tokens, d); };
  const int64_t packs = d / pack_width;
  bool whole = true;
  for (const View& view : {x, shift, scale, y}) whole = whole && has_packs(view, d, pack_width);
  if (!whole || packs > 12 * block_threads) {
    launch(modulate_plain<X, Y>, dim3(static_cast<unsigned>(divide_up(rows * warp_size, block_threads))),
           dim3(block_threads), 0, x.as<X>(), shift.as<float>(), scale.as<float>(), epsilon, y.as<Y>(),
           statistics.as<float>(), rows, tokens, d);
    return;
  }
  if (packs <= 3 * warp_size) return go(launch_packs<3, warp_size, X, Y>);
  if (packs <= 6 * warp_size) return go(launch_packs<6, warp_size, X, Y>);
  if (packs <= 9 * warp_size) return go(launch_packs<9, warp_size, X, Y>);
  if (packs <= 12 * warp_size) return go(launch_packs<12, warp_size, X, Y>);
  if (packs <= 4 * block_threads) return go(launch_packs<4, block_threads, X, Y>);
  return go(launch_packs<12, block_threads, X, Y>);
}

// With g' = g(1 + scale): dx = (g' − mean(g') − x̂·mean(g'·x̂))/σ; of each block, shift_sums = Σ g and scale_sums
// = Σ g·x̂ over its rows.
struct Backward {
  const float *scale, *statistics;
  float *shift_sums, *scale_sums;
  RowParts rows;
};

// Sums of N numbers each over the block, in every thread. `sums` is used by every other call only.
template <int N>
__device__ __forceinline__ void block_sums(float (&x)[N], Pack<float, N>* sums) {
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = warp_sum(x[i]);
  const int warp = static_cast<int>(threadIdx.x) / warp_size, warps = static_cast<int>(blockDim.x) / warp_size;
  if (threadIdx.x % warp_size == 0)
#pragma unroll
    for (int i = 0; i < N; ++i) sums[warp].at[i] = x[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = 0;
  for (int w = 0; w < warps; ++w) {
    const Pack<float, N> other = sums[w];
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] += other.at[i];
  }
}

template <int Together, int MostThreads, class G, class X>
__global__ void __launch_bounds__(MostThreads)
    backward_packs(const G* __restrict__ g, const X* __restrict__ x, X* __restrict__ dx, Backward b) {
  __shared__ Pack<float, 2 * Together> sums[2][MostThreads / warp_size];
  const int64_t d = b.rows.d, sample = blockIdx.x / b.rows.parts, begin = sample * b.rows.tokens;
  const int64_t first_row = begin + blockIdx.x % b.rows.parts * b.rows.part;
  const int64_t end = min(first_row + b.rows.part, begin + b.rows.tokens);
  const int64_t column = int64_t{pack_width} * threadIdx.x;
  const bool inside = column < d;
  const float share = 1.0f / static_cast<float>(d);
  Pack<float, pack_width> gain{}, shift_sum{}, scale_sum{};
  if (inside) gain = load_pack<pack_width>(b.scale + sample * d + column);
#pragma unroll
  for (int i = 0; i < pack_width; ++i) gain.at[i] += 1.0f;
  int turn = 0;
  for (int64_t row = first_row; row < end; row += Together, turn ^= 1) {
    float gradient[Together][pack_width] = {}, hat[Together][pack_width] = {}, inverse[Together] = {};
#pragma unroll
    for (int r = 0; r < Together; ++r) {
      if (!inside || row + r >= end) continue;
      const auto gs = load_pack<pack_width>(g + (row + r) * d + column);
      const auto xs = load_pack<pack_width>(x + (row + r) * d + column);
      const auto known = load_pack<2>(b.statistics + 2 * (row + r));
      const float first = to_float(x[(row + r) * d]);
      inverse[r] = known.at[1];
#pragma unroll
      for (int i = 0; i < pack_width; ++i) {
        gradient[r][i] = to_float(gs.at[i]);
        hat[r][i] = (to_float(xs.at[i]) - first - known.at[0]) * known.at[1];
      }
    }
    float along[2 * Together] = {};  // Σ g' and Σ g'·x̂ of each row
#pragma unroll
    for (int r = 0; r < Together; ++r)
#pragma unroll
      for (int i = 0; i < pack_width; ++i) {
        shift_sum.at[i] += gradient[r][i];
        scale_sum.at[i] = fmaf(gradient[r][i], hat[r][i], scale_sum.at[i]);
        gradient[r][i] *= gain.at[i];
        along[2 * r] += gradient[r][i];
        along[2 * r + 1] = fmaf(gradient[r][i], hat[r][i], along[2 * r + 1]);
      }
    block_sums(along, sums[turn]);
#pragma unroll
    for (int r = 0; r < Together; ++r) {
      if (!inside || row + r >= end) continue;
      Pack<X, pack_width> result;
#pragma unroll
      for (int i = 0; i < pack_width; ++i)
        assign(result.at[i],
               (gradient[r][i] - along[2 * r] * share - hat[r][i] * (along[2 * r + 1] * share)) * inverse[r]);
      store_pack(dx + (row + r) * d + column, result);
    }
  }
  if (!inside) return;
  store_pack(b.shift_sums + blockIdx.x * d + column, shift_sum);
  store_pack(b.scale_sums + blockIdx.x * d + column, scale_sum);
}

// The same of any width, one row after the other; sums gather where they are wanted.
template <class G, class X>
__global__ void backward_plain(const G* g, const X* x, X* dx, Backward b) {
  const int64_t d = b.rows.d, sample = blockIdx.x / b.rows.parts, begin = sample * b.rows.tokens;
  const int64_t first_row = begin + blockIdx.x % b.rows.parts * b.rows.part;
  const int64_t end = min(first_row + b.rows.part, begin + b.rows.tokens);
  const float share = 1.0f / static_cast<float>(d);
  const float* const scale = b.scale + sample * d;
  float *const shift_sums = b.shift_sums + blockIdx.x * d, *const scale_sums = b.scale_sums + blockIdx.x * d;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) shift_sums[i] = scale_sums[i] = 0;
  for (int64_t row = first_row; row < end; ++row) {
    const float first = to_float(x[row * d]), mean = b.statistics[2 * row], inverse = b.statistics[2 * row + 1];
    const auto hat = [&](int64_t i) { return (to_float(x[row * d + i]) - first - mean) * inverse; };
    float total = 0, along = 0;
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
      const float gradient = to_float(g[row * d + i]), gained = gradient * (scale[i] + 1.0f);
      shift_sums[i] += gradient;
      scale_sums[i] += gradient * hat(i);
      total += gained;
      along += gained * hat(i);
    }
    total = block_sum(total) * share;
    along = block_sum(along) * share;
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x)
      assign(dx[row * d + i],
             (to_float(g[row * d + i]) * (scale[i] + 1.0f) - total - hat(i) * along) * inverse);
  }
}

template <class G, class X>
void backward_typed(View g, View x, View dx, const Backward& b, bool whole) {
  const int64_t packs = b.rows.d / pack_width;
  const dim3 blocks(b.rows.blocks());
  if (whole && packs <= 512)
    launch(backward_packs<rows_together, 512, G, X>, blocks, dim3(threads_for(packs, 512)), 0, g.as<G>(),
           x.as<X>(), dx.as<X>(), b);
  else if (whole && packs <= 1024)
    launch(backward_packs<rows_together / 2, 1024, G, X>, blocks, dim3(threads_for(packs, 1024)), 0, g.as<G>(),
           x.as<X>(), dx.as<X>(), b);
  else
    launch(backward_plain<G, X>, blocks, dim3(threads_for(b.rows.d, block_threads)), 0, g.as<G>(), x.as<X>(),
           dx.as<X>(), b);
}

}  // namespace

void modulate(View x, View shift, View scale, float epsilon, View y, View statistics, int64_t batch,
              int64_t tokens, int64_t d) {
  with_float(x.dtype, [&](auto* in) {
    with_float(y.dtype, [&](auto* out) {
      modulate_typed<Pointee<decltype(in)>, Pointee<decltype(out)>>(x, shift, scale, epsilon, y, statistics,
                                                                    batch * tokens, tokens, d);
    });
  });
}

void modulate_backward(View g, View x, View scale, View statistics, View dx, View dshift, View dscale,
                       int64_t batch, int64_t tokens, int64_t d) {
  const RowParts rows(batch, tokens, d);
  const PartialSums shift_sums(rows, dshift), scale_sums(rows, dscale);
  const Backward b{scale.as<float>(), statistics.as<float>(), shift_sums.at(), scale_sums.at(), rows};
  bool whole = true;
  for (const View& view : {g, x, scale, dx, dshift, dscale}) whole = whole && has_packs(view, d, pack_width);
  with_float(g.dtype, [&](auto* gradient) {
    with_float(x.dtype, [&](auto* in) {
      backward_typed<Pointee<decltype(gradient)>, Pointee<decltype(in)>>(g, x, dx, b, whole);
    });
  });
  shift_sums.add_up();
  scale_sums.add_up();
}

void fill(ops::NormKernels& table) {
  table = {modulate, modulate_backward, gated_residual, gated_residual_backward, rms, rms_backward};
}

}  // namespace linnet::cuda
