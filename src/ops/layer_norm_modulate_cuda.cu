// Modulated layer norm. Forward reads x and writes y, each once: a row is held in the registers of a warp, or
// of a block. Backward reads g and x and writes dx, each once, and sums over rows as it goes: a thread owns
// four columns of its block's rows. Any other width takes the plain kernels, which find a row's later readings
// in the cache.
#include <type_traits>

#include "cuda/cells.h"
#include "cuda/kernels.h"
#include "cuda/packs.h"
#include "ops/norm_cuda.h"

namespace linnet::cuda {
namespace {

constexpr int block_threads = 256, most_packs_of_a_lane = 9;

// Deviations are taken from a row's first value before its mean is formed: of values close together that
// difference is exact, while a mean in f32 could be off by more than their deviation. statistics: mean less
// first value, and 1/σ.
// A warp takes several rows of a sample, one after the other, and reads the next one while it works on one; the
// sample's scale and shift lie in shared memory.
struct WarpRows {
  int each;                // rows of a warp
  int64_t tokens, chunks;  // of a sample
};

// What joins x before the norm, and where the sum goes. Branch: float, bf16, f16, or void for nothing.
template <class Branch>
struct Joining {
  const Branch* branch;
  const float* gate;  // of each sample; null: 1
  float* sum;
};
template <>
struct Joining<void> {};

// A lane's packs of a row joined by the branch, and the sum written. First all is read and then all written, so
// that no read has to wait for a write; how many are under way at once is left to the compiler, which knows how
// many registers there are.
template <int Packs, class Branch>
__device__ __forceinline__ void join_row(float (&v)[Packs][pack_width], const Joining<Branch>& joining,
                                         const float* gate, int64_t first, int lane, int d) {
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const int at = (lane + p * warp_size) * pack_width;
    if (at >= d) continue;
    const auto branch = load_pack<pack_width>(joining.branch + first + at);
    const auto gates = load_pack<pack_width>(gate + at);
#pragma unroll
    for (int i = 0; i < pack_width; ++i) v[p][i] = fmaf(gates.at[i], to_float(branch.at[i]), v[p][i]);
  }
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const int at = (lane + p * warp_size) * pack_width;
    if (at < d)
      store_pack(joining.sum + first + at, Pack<float, pack_width>{{v[p][0], v[p][1], v[p][2], v[p][3]}});
  }
}

template <int Packs, class X, class Y, class Branch>
__global__ void __launch_bounds__(block_threads, 2)
    modulate_warps(const X* __restrict__ x, Joining<Branch> joining, const float* __restrict__ shift,
                   const float* __restrict__ scale, float epsilon, Y* __restrict__ y,
                   float* __restrict__ statistics, WarpRows rows, int d) {
  constexpr bool joins = !std::is_void_v<Branch>;
  LINNET_DYNAMIC_SHARED(memory);
  float* const gain = static_cast<float*>(static_cast<void*>(memory));
  float *const offset = gain + d, *const gate = offset + d;
  constexpr int warps = block_threads / warp_size;
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const int64_t sample = blockIdx.x / rows.chunks, chunk = blockIdx.x % rows.chunks;
  const int packs = d / pack_width;
  for (int i = static_cast<int>(threadIdx.x); i < packs; i += block_threads) {
    const int64_t at = sample * d + i * pack_width;
    auto values = load_pack<pack_width>(scale + at);
#pragma unroll
    for (int k = 0; k < pack_width; ++k) values.at[k] += 1.0f;
    store_pack(gain + i * pack_width, values);
    store_pack(offset + i * pack_width, load_pack<pack_width>(shift + at));
    if constexpr (joins)
      store_pack(gate + i * pack_width, joining.gate ? load_pack<pack_width>(joining.gate + at)
                                                     : Pack<float, pack_width>{{1.0f, 1.0f, 1.0f, 1.0f}});
  }
  __syncthreads();
  const int64_t first_token = (chunk * warps + warp) * rows.each;
  const int64_t last_token = min(first_token + rows.each, rows.tokens);
  Pack<X, pack_width> next[Packs];
  const auto read = [&](int64_t token) {
#pragma unroll
    for (int p = 0; p < Packs; ++p) {
      const int at = (lane + p * warp_size) * pack_width;
      if (at < d) next[p] = load_pack<pack_width>(x + (sample * rows.tokens + token) * d + at);
    }
  };
  // With a branch, a row and the next one would be more than the registers hold.
  constexpr bool ahead = !joins;
  if (ahead && first_token < last_token) read(first_token);
  for (int64_t token = first_token; token < last_token; ++token) {
    if constexpr (!ahead) read(token);
    const int64_t row = sample * rows.tokens + token;
    float v[Packs][pack_width], sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < Packs; ++p)
#pragma unroll
      for (int i = 0; i < pack_width; ++i) v[p][i] = to_float(next[p].at[i]);
    if constexpr (joins) join_row(v, joining, gate, row * d, lane, d);
    if (ahead && token + 1 < last_token) read(token + 1);
    const float first = __shfl_sync(all_lanes, v[0][0], 0), share = 1.0f / static_cast<float>(d);
#pragma unroll
    for (int p = 0; p < Packs; ++p)
      if (lane + p * warp_size < packs) {
#pragma unroll
        for (int i = 0; i < pack_width; ++i) v[p][i] -= first;
        sum += v[p][0] + v[p][1] + (v[p][2] + v[p][3]);
      }
    const float mean = warp_sum(sum) * share;
#pragma unroll
    for (int p = 0; p < Packs; ++p)
      if (lane + p * warp_size < packs)
#pragma unroll
        for (int i = 0; i < pack_width; ++i) {
          v[p][i] -= mean;
          squares = fmaf(v[p][i], v[p][i], squares);
        }
    const float inverse = 1.0f / sqrtf(warp_sum(squares) * share + epsilon);
    if (lane == 0) store_pack<2>(statistics + 2 * row, {{mean, inverse}});
#pragma unroll
    for (int p = 0; p < Packs; ++p) {
      const int at = (lane + p * warp_size) * pack_width;
      if (at >= d) continue;
      const auto times = load_pack<pack_width>(gain + at), more = load_pack<pack_width>(offset + at);
      Pack<Y, pack_width> result;
#pragma unroll
      for (int i = 0; i < pack_width; ++i)
        assign(result.at[i], fmaf(v[p][i] * inverse, times.at[i], more.at[i]));
      store_pack(y + row * d + at, result);
    }
  }
}

// A block a row.
template <int Packs, class X, class Y>
__global__ void __launch_bounds__(block_threads, 2)
    modulate_block(const X* __restrict__ x, const float* __restrict__ shift, const float* __restrict__ scale,
                   float epsilon, Y* __restrict__ y, float* __restrict__ statistics, int64_t tokens, int d) {
  const int thread = static_cast<int>(threadIdx.x), packs = d / pack_width;
  const int64_t row = blockIdx.x;
  x += row * d;
  y += row * d;
  const float first = to_float(x[0]), share = 1.0f / static_cast<float>(d);
  float v[Packs][pack_width], sum = 0;
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const int at = thread + p * block_threads;
    if (at < packs) {
      const auto values = load_pack<pack_width>(x + at * pack_width);
#pragma unroll
      for (int i = 0; i < pack_width; ++i) v[p][i] = to_float(values.at[i]) - first;
    }
  }
#pragma unroll
  for (int p = 0; p < Packs; ++p)
    if (thread + p * block_threads < packs) sum += v[p][0] + v[p][1] + (v[p][2] + v[p][3]);
  const float mean = block_sum(sum) * share;
  float squares = 0;
#pragma unroll
  for (int p = 0; p < Packs; ++p)
    if (thread + p * block_threads < packs)
#pragma unroll
      for (int i = 0; i < pack_width; ++i) {
        v[p][i] -= mean;
        squares = fmaf(v[p][i], v[p][i], squares);
      }
  const float inverse = 1.0f / sqrtf(block_sum(squares) * share + epsilon);
  if (thread == 0) store_pack<2>(statistics + 2 * row, {{mean, inverse}});
  shift += row / tokens * d;
  scale += row / tokens * d;
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const int at = thread + p * block_threads;
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

template <int Packs, class X, class Y, class Branch = void>
void launch_warps(View x, View shift, View scale, float epsilon, View y, View statistics, int64_t batch,
                  int64_t tokens, int64_t d, Joining<Branch> joining = {}) {
  constexpr int64_t warps = block_threads / warp_size;
  int64_t each = 8;  // unless that leaves multiprocessors without work
  while (each > 1 && batch * divide_up(tokens, warps * each) < int64_t{4} * multiprocessors()) each /= 2;
  const WarpRows rows{static_cast<int>(each), tokens, divide_up(tokens, warps * each)};
  const int64_t shared = std::is_void_v<Branch> ? 2 * d : 3 * d;  // scale, shift and gate
  launch(modulate_warps<Packs, X, Y, Branch>, dim3(static_cast<unsigned>(batch * rows.chunks)),
         dim3(block_threads), static_cast<size_t>(shared) * sizeof(float), x.as<X>(), joining,
         shift.as<float>(), scale.as<float>(), epsilon, y.as<Y>(), statistics.as<float>(), rows,
         static_cast<int>(d));
}

template <int Packs, class X, class Y>
void launch_block(View x, View shift, View scale, float epsilon, View y, View statistics, int64_t batch,
                  int64_t tokens, int64_t d) {
  launch(modulate_block<Packs, X, Y>, dim3(static_cast<unsigned>(batch * tokens)), dim3(block_threads), 0,
         x.as<X>(), shift.as<float>(), scale.as<float>(), epsilon, y.as<Y>(), statistics.as<float>(), tokens,
         static_cast<int>(d));
}

template <int N>
using Size = std::integral_constant<int, N>;

// Calls what(Size<packs of a lane>{}); false if a warp has no room for the row.
template <class What>
bool with_packs_of_a_lane(int64_t packs, const What& what) {
  if (packs <= 3 * warp_size)
    what(Size<3>{});
  else if (packs <= 6 * warp_size)
    what(Size<6>{});
  else if (packs <= most_packs_of_a_lane * warp_size)
    what(Size<most_packs_of_a_lane>{});
  return packs <= most_packs_of_a_lane * warp_size;
}

template <class X, class Y>
void modulate_typed(View x, View shift, View scale, float epsilon, View y, View statistics, int64_t batch,
                    int64_t tokens, int64_t d) {
  const auto go = [&](auto kernel) { kernel(x, shift, scale, epsilon, y, statistics, batch, tokens, d); };
  const int64_t packs = d / pack_width;
  bool whole = true;
  for (const View& view : {x, shift, scale, y}) whole = whole && has_packs(view, d, pack_width);
  if (!whole || packs > 12 * block_threads) {
    launch(modulate_plain<X, Y>,
           dim3(static_cast<unsigned>(divide_up(batch * tokens * warp_size, block_threads))),
           dim3(block_threads), 0, x.as<X>(), shift.as<float>(), scale.as<float>(), epsilon, y.as<Y>(),
           statistics.as<float>(), batch * tokens, tokens, d);
    return;
  }
  const auto warps = [&]<int Packs>(Size<Packs>) {
    launch_warps<Packs, X, Y>(x, shift, scale, epsilon, y, statistics, batch, tokens, d);
  };
  if (with_packs_of_a_lane(packs, warps)) return;
  if (packs <= 4 * block_threads) return go(launch_block<4, X, Y>);
  return go(launch_block<12, X, Y>);
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
__global__ void __launch_bounds__(MostThreads, MostThreads <= 320 ? 3 : 1)
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
  // The next rows are on their way while the block adds up what it has of these.
  Pack<G, pack_width> gs[Together];
  Pack<X, pack_width> xs[Together];
  const auto read = [&](int64_t row) {
#pragma unroll
    for (int r = 0; r < Together; ++r) {
      if (!inside || row + r >= end) continue;
      gs[r] = load_pack<pack_width>(g + (row + r) * d + column);
      xs[r] = load_pack<pack_width>(x + (row + r) * d + column);
    }
  };
  read(first_row);
  int turn = 0;
  for (int64_t row = first_row; row < end; row += Together, turn ^= 1) {
    float gradient[Together][pack_width] = {}, hat[Together][pack_width] = {}, inverse[Together] = {};
#pragma unroll
    for (int r = 0; r < Together; ++r) {
      if (!inside || row + r >= end) continue;
      const auto known = load_pack<2>(b.statistics + 2 * (row + r));
      const float first = to_float(x[(row + r) * d]);
      inverse[r] = known.at[1];
#pragma unroll
      for (int i = 0; i < pack_width; ++i) {
        gradient[r][i] = to_float(gs[r].at[i]);
        hat[r][i] = (to_float(xs[r].at[i]) - first - known.at[0]) * known.at[1];
      }
    }
    read(row + Together);
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
  if (whole && packs <= 320)
    launch(backward_packs<rows_together / 2, 320, G, X>, blocks, dim3(threads_for(packs, 320)), 0, g.as<G>(),
           x.as<X>(), dx.as<X>(), b);
  else if (whole && packs <= 512)
    launch(backward_packs<rows_together / 2, 512, G, X>, blocks, dim3(threads_for(packs, 512)), 0, g.as<G>(),
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
                                                                    batch, tokens, d);
    });
  });
}

bool joins(int64_t d) { return d % pack_width == 0 && d <= pack_width * most_packs_of_a_lane * warp_size; }

void join_and_modulate(View x, View gate, View branch, View sum, View shift, View scale, float epsilon, View y,
                       View statistics, int64_t batch, int64_t tokens, int64_t d) {
  with_float(branch.dtype, [&](auto* from) {
    using Branch = Pointee<decltype(from)>;
    with_float(y.dtype, [&](auto* to) {
      with_packs_of_a_lane(d / pack_width, [&]<int Packs>(Size<Packs>) {
        launch_warps<Packs, float, Pointee<decltype(to)>, Branch>(
            x, shift, scale, epsilon, y, statistics, batch, tokens, d,
            {branch.as<Branch>(), gate.as<float>(), sum.as<float>()});
      });
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
  table = {modulate, modulate_backward, gated_residual, gated_residual_backward, join_and_modulate, joins,
           rms,      rms_backward};
}

}  // namespace linnet::cuda
