// The focused feature map: a block takes a row at a time, of whose channels each thread takes some neighbours,
// and goes over it three times (for ‖y‖, for ‖t³‖ and to write), of which two find it in the nearest cache.
#include <algorithm>

#include "cuda/cells.h"
#include "cuda/kernels.h"

namespace linnet::cuda {
namespace {

constexpr float epsilon = 1e-6f;

template <class X, class G>
struct FocusedRows {
  const X* x;
  const G* g;                        // the output's gradient
  X* y;                              // the output, or dx
  const float *inverse, *positions;  // 1/softplus(scale); (tokens, width) or null
  float *growth, *dpositions;        // (blocks, width): Σ dy·y; (tokens, width)
  int64_t batch, tokens, stride, width;
};

// relu, or GELU by the error function, and its slope; NaN stays NaN.
template <bool Gelu>
__device__ __forceinline__ float activated(float u, float& slope) {
  if constexpr (Gelu) {
    const float below = 0.5f + 0.5f * erff(u * 0.70710678f);  // Φ(u)
    slope = fmaf(u * 0.39894228f, __expf(-0.5f * u * u), below);
    return u * below;
  }
  slope = u <= 0.0f ? 0.0f : 1.0f;
  return u <= 0.0f ? 0.0f : u;
}

// y of one channel.
template <bool Gelu>
__device__ __forceinline__ float scaled(float x, float position, float inverse, float& slope) {
  return (activated<Gelu>(x + position, slope) + epsilon) * inverse;
}

template <class X, class G>
struct Row {
  const X* x;
  const G* g;
  X* y;
  const float* position;
};
template <class X, class G>
__device__ __forceinline__ Row<X, G> row_at(const FocusedRows<X, G>& in, int64_t sample, int64_t token) {
  const int64_t at = (sample * in.tokens + token) * in.stride;
  return {in.x + at, in.g + at, in.y + at, in.positions ? in.positions + token * in.width : nullptr};
}

// visit(i, y, its slope) for this thread's channels of a row.
template <bool Gelu, int N, class X, class G, class Visit>
__device__ __forceinline__ void for_channels(const FocusedRows<X, G>& in, const Row<X, G>& row, Visit visit) {
  for (int64_t first = threadIdx.x * N; first < in.width; first += blockDim.x * N) {
    const auto x = load_pack<N>(row.x + first);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int64_t i = first + j;
      float slope;
      const float y =
          scaled<Gelu>(to_float(x.at[j]), row.position ? row.position[i] : 0.0f, in.inverse[i], slope);
      visit(i, y, slope);
    }
  }
}

template <int N, class From, class To>
__device__ __forceinline__ void hand_on(const From* from, To* to, int64_t first, int64_t last) {
  for (int64_t i = first + threadIdx.x * N; i < last; i += blockDim.x * N) {
    const auto values = load_pack<N>(from + i);
    Pack<To, N> copies;
#pragma unroll
    for (int j = 0; j < N; ++j) assign(copies.at[j], to_float(values.at[j]));
    store_pack(to + i, copies);
  }
}

template <bool Gelu, int N, class X>
__global__ void map_rows(FocusedRows<X, X> in) {
  for (int64_t r = blockIdx.x; r < in.batch * in.tokens; r += gridDim.x) {
    const auto row = row_at(in, r / in.tokens, r % in.tokens);
    float squares = 0, cubes = 0;
    for_channels<Gelu, N>(in, row, [&](int64_t, float y, float) { squares = fmaf(y, y, squares); });
    // Of t = y/‖y‖, no power leaves f32's range.
    const float length = sqrtf(block_sum(squares)), inverse_length = 1.0f / length;
    for_channels<Gelu, N>(in, row, [&](int64_t, float y, float) {
      const float t = y * inverse_length, cube = t * t * t;
      cubes = fmaf(cube, cube, cubes);
    });
    const float factor = length / sqrtf(block_sum(cubes));
    Pack<X, N> pack;
    for_channels<Gelu, N>(in, row, [&](int64_t i, float y, float) {
      const float t = y * inverse_length;
      assign(pack.at[i % N], t * t * t * factor);
      if (i % N == N - 1) store_pack(row.y + i - (N - 1), pack);
    });
    hand_on<N>(row.x, row.y, in.width, in.stride);
  }
}

// With t = y/‖y‖, c = ‖t³‖ and A = Σ g·t³:  dy = (3t²g + A(t − 3t⁵/c²))/c;  du = dy·act'(u)/softplus(scale).
// A block takes a token of all samples, so that it alone writes the gradient of a position; sums over tokens
// gather in its shared memory, each thread's channels apart. Without positions any row follows any other.
template <bool Gelu, int N, class X, class G>
__global__ void map_rows_backward(FocusedRows<X, G> in) {
  LINNET_DYNAMIC_SHARED(shared);
  float* const growth = static_cast<float*>(static_cast<void*>(shared));
  float* const dposition = growth + in.width;  // only with positions
  for (int64_t i = threadIdx.x * N; i < in.width; i += blockDim.x * N)
    for (int j = 0; j < N; ++j) growth[i + j] = 0;
  const int64_t rows = in.batch * in.tokens, samples = in.positions ? in.batch : 1;
  for (int64_t unit = blockIdx.x; unit < rows / samples; unit += gridDim.x)
    for (int64_t sample = 0; sample < samples; ++sample) {
      const auto row = in.positions ? row_at(in, sample, unit) : row_at(in, unit / in.tokens, unit % in.tokens);
      float squares = 0, cubes = 0, along = 0;
      for_channels<Gelu, N>(in, row, [&](int64_t, float y, float) { squares = fmaf(y, y, squares); });
      const float length = sqrtf(block_sum(squares)), inverse_length = 1.0f / length;
      for_channels<Gelu, N>(in, row, [&](int64_t i, float y, float) {
        const float t = y * inverse_length, cube = t * t * t;
        cubes = fmaf(cube, cube, cubes);
        along = fmaf(to_float(row.g[i]), cube, along);
      });
      along = block_sum(along);
      const float inverse_cubes = 1.0f / sqrtf(block_sum(cubes)), bend = 3.0f * inverse_cubes * inverse_cubes;
      for_channels<Gelu, N>(in, row, [&](int64_t i, float y, float slope) {
        const float t = y * inverse_length, square = t * t;
        const float turned = t * fmaf(-square * square, bend, 1.0f);
        const float dy = fmaf(turned, along, 3.0f * square * to_float(row.g[i])) * inverse_cubes;
        const float du = dy * in.inverse[i] * slope;
        growth[i] = fmaf(dy, y, growth[i]);
        if (in.positions) dposition[i] = sample == 0 ? du : dposition[i] + du;
        if (in.positions && sample == samples - 1) in.dpositions[unit * in.width + i] = dposition[i];
        assign(row.y[i], du);
      });
      hand_on<N>(row.g, row.y, in.width, in.stride);
    }
  for (int64_t i = threadIdx.x * N; i < in.width; i += blockDim.x * N)
    for (int j = 0; j < N; ++j) in.growth[blockIdx.x * in.width + i + j] = growth[i + j];
}

__global__ void invert_scale(const float* scale, float* inverse, int64_t width) {
  for (int64_t i = thread_number(); i < width; i += thread_count())
    inverse[i] = 1.0f / (fmaxf(scale[i], 0.0f) + log1pf(expf(-fabsf(scale[i]))));
}

// −σ(scale)/softplus(scale)·Σ dy·y, since y is proportional to 1/softplus(scale). A block of 32×8 threads adds
// up 32 channels over the blocks, in a fixed order.
__global__ void scale_gradient(const float* growth, int64_t blocks, const float* scale, const float* inverse,
                               float* dscale, int64_t width) {
  __shared__ float sums[8][warp_size];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * warp_size + threadIdx.x;
  float sum = 0;
  if (i < width)
    for (int64_t block = threadIdx.y; block < blocks; block += 8) sum += growth[block * width + i];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || i >= width) return;
  for (int y = 1; y < 8; ++y) sum += sums[y][threadIdx.x];
  dscale[i] = -sum * inverse[i] / (1.0f + expf(-scale[i]));
}

// Neighbours that a thread takes at once; threads that then cover a row, if they are not too many.
constexpr int64_t neighbours = 4;
bool in_packs(int64_t stride, int64_t width) { return stride % neighbours == 0 && width % neighbours == 0; }
dim3 threads_of(int64_t width, int64_t each) {
  return dim3(
      static_cast<unsigned>(std::min<int64_t>(divide_up(divide_up(width, each), warp_size) * warp_size, 512)));
}

// body(std::bool_constant whether GELU, std::integral_constant neighbours)
template <class Body>
void with_variant(bool gelu, bool packs, Body&& body) {
  const auto with_activation = [&](auto is_gelu) {
    if (packs)
      body(is_gelu, std::integral_constant<int, neighbours>());
    else
      body(is_gelu, std::integral_constant<int, 1>());
  };
  gelu ? with_activation(std::true_type()) : with_activation(std::false_type());
}

void forward(View x, View scale, View positions, bool gelu, View out, int64_t batch, int64_t tokens,
             int64_t stride, int64_t width) {
  const Scratch inverse(static_cast<size_t>(width) * sizeof(float));
  launch_over(width, invert_scale, scale.as<float>(), inverse.as<float>(), width);
  with_float(x.dtype, [&](auto* type) {
    with_variant(gelu, in_packs(stride, width), [&](auto is_gelu, auto each) {
      using X = Pointee<decltype(type)>;
      constexpr int n = decltype(each)::value;
      const int64_t blocks = std::min<int64_t>(batch * tokens, int64_t{32} * multiprocessors());
      launch(map_rows<decltype(is_gelu)::value, n, X>, dim3(static_cast<unsigned>(blocks)),
             threads_of(width, n), 0,
             FocusedRows<X, X>{x.as<X>(), x.as<X>(), out.as<X>(), inverse.as<float>(), positions.as<float>(),
                               nullptr, nullptr, batch, tokens, stride, width});
    });
  });
}

void backward(View g, View x, View scale, View positions, bool gelu, View dx, View dscale, View dpositions,
              int64_t batch, int64_t tokens, int64_t stride, int64_t width) {
  const bool positioned = positions.data != nullptr;
  const int64_t units = positioned ? tokens : batch * tokens;
  const int64_t blocks = std::min<int64_t>(units, int64_t{8} * multiprocessors());
  const Scratch inverse(static_cast<size_t>(width) * sizeof(float)),
      growth(static_cast<size_t>(blocks * width) * sizeof(float));
  launch_over(width, invert_scale, scale.as<float>(), inverse.as<float>(), width);
  with_float(x.dtype, [&](auto* type) {
    with_float(g.dtype, [&](auto* gradient) {
      with_variant(gelu, in_packs(stride, width), [&](auto is_gelu, auto each) {
        using X = Pointee<decltype(type)>;
        using G = Pointee<decltype(gradient)>;
        constexpr int n = decltype(each)::value;
        launch(map_rows_backward<decltype(is_gelu)::value, n, X, G>, dim3(static_cast<unsigned>(blocks)),
               threads_of(width, n), static_cast<size_t>(width) * (positioned ? 2 : 1) * sizeof(float),
               FocusedRows<X, G>{x.as<X>(), g.as<G>(), dx.as<X>(), inverse.as<float>(), positions.as<float>(),
                                 growth.as<float>(), dpositions.as<float>(), batch, tokens, stride, width});
      });
    });
  });
  launch(scale_gradient, dim3(static_cast<unsigned>(divide_up(width, warp_size))), dim3(warp_size, 8), 0,
         growth.as<float>(), blocks, scale.as<float>(), inverse.as<float>(), dscale.as<float>(), width);
}

}  // namespace

void fill(ops::FocusedMapKernels& table) { table = {forward, backward}; }

}  // namespace linnet::cuda
