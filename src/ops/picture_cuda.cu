// Pictures (n, height, width, channels): group norm, moving between layouts, pooling and resizing. All are
// bound by memory. Convolutions are cuda/convolution.h's.
#include "cuda/convolution.h"
#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

constexpr int threads = 256;

bool aligned(View view, size_t to) { return reinterpret_cast<uintptr_t>(view.data) % to == 0; }

// How a block walks over pixels: its threads are a grid of rows of pixels by packs of neighbouring channels, so
// that a thread keeps its channels, and what belongs to them, all along.
struct Walk {
  int64_t pixels, channels;
  int packs, rows;  // of a block: packs·rows <= threads
};

__device__ __forceinline__ int64_t pack_number(const Walk& w) {
  return static_cast<int64_t>(blockIdx.z) * w.packs + threadIdx.x % w.packs;
}
__device__ __forceinline__ int64_t row_number(const Walk& w) { return threadIdx.x / w.packs; }

template <int N>
Walk make_walk(int64_t pixels, int64_t channels) {
  const int64_t packs = channels / N, own = packs < threads ? packs : threads;
  return {pixels, channels, static_cast<int>(own), static_cast<int>(threads / own)};
}

// Parts of a picture's pixels, a block each: enough for the card, few enough for each to be worth its start.
int64_t parts_of(const Walk& w, int64_t n) {
  const int64_t most = divide_up(w.pixels, int64_t{4} * w.rows),
                wanted = divide_up(int64_t{8} * multiprocessors(), n);
  return most < wanted ? most : wanted;
}

template <int N>
dim3 grid_of(const Walk& w, int64_t parts, int64_t n) {
  return dim3(static_cast<unsigned>(parts), static_cast<unsigned>(n),
              static_cast<unsigned>(divide_up(w.channels / N, w.packs)));
}

// x − pivot and its square, summed over the pixels of each part: sums (n, parts, 2, channels). The pivot, a
// value of the group, is near the others compared with 0, so that nothing is lost in the squares.
template <class T, int N>
__global__ void channel_sums(const Pack<T, N>* x, const T* values, float* sums, Walk w, int64_t each) {
  __shared__ float shared[2 * threads * N];
  const int64_t pack = pack_number(w), packs = w.channels / N, sample = blockIdx.y, part = blockIdx.x,
                parts = gridDim.x;
  const int64_t from = w.pixels * part / parts, to = w.pixels * (part + 1) / parts;
  const bool here = row_number(w) < w.rows && pack < packs;
  float first[N], second[N], pivot[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    first[i] = second[i] = 0.0f;
    pivot[i] = here ? to_float(values[sample * w.pixels * w.channels + (pack * N + i) / each * each]) : 0.0f;
  }
  for (int64_t p = here ? from + row_number(w) : to; p < to; p += w.rows) {
    const Pack<T, N> in = x[(sample * w.pixels + p) * packs + pack];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float apart = to_float(in.at[i]) - pivot[i];
      first[i] += apart;
      second[i] = fmaf(apart, apart, second[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    shared[threadIdx.x * N + i] = first[i];
    shared[(threads + threadIdx.x) * N + i] = second[i];
  }
  __syncthreads();
  // A thread for each channel and kind of sum adds up what the rows found.
  const int own = w.packs * N;
  for (int i = threadIdx.x; i < 2 * own; i += threads) {
    const int64_t channel = static_cast<int64_t>(blockIdx.z) * own + i % own;
    if (channel >= w.channels) continue;
    float total = 0.0f;
    for (int row = 0; row < w.rows; ++row) total += shared[(i / own * threads + row * w.packs) * N + i % own];
    sums[((sample * parts + part) * 2 + i / own) * w.channels + channel] = total;
  }
}

// A block for each group of each picture: its mean and variance out of the parts' sums, in f64.
template <class T>
__global__ void finish_groups(const T* x, const float* sums, float* moments, int64_t parts, int64_t pixels,
                              int64_t channels, int64_t each) {
  __shared__ double shared[2 * threads];
  const int64_t group = blockIdx.x, sample = blockIdx.y;
  const int thread = static_cast<int>(threadIdx.x);
  double first = 0, second = 0;
  for (int64_t i = thread; i < parts * each; i += threads) {
    const float* part = sums + (sample * parts + i / each) * 2 * channels + group * each + i % each;
    first += static_cast<double>(part[0]);
    second += static_cast<double>(part[channels]);
  }
  shared[thread] = first;
  shared[threads + thread] = second;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) {
      shared[thread] += shared[thread + half];
      shared[threads + thread] += shared[threads + thread + half];
    }
  }
  if (thread != 0) return;
  const double count = static_cast<double>(pixels * each), mean = shared[0] / count,
               variance = shared[threads] / count - mean * mean;
  float* out = moments + (sample * gridDim.x + group) * 2;
  out[0] =
      static_cast<float>(static_cast<double>(to_float(x[sample * pixels * channels + group * each])) + mean);
  out[1] = static_cast<float>(variance > 0 ? variance : 0.0);
}

// Reads and writes each value once. x and y may be the same.
template <class T, int N>
__global__ void normalize(const Pack<T, N>* x, const float* moments, bool shared_moments, const float* weight,
                          const float* bias, float epsilon, bool silu, Pack<T, N>* y, Walk w, int64_t each) {
  const int64_t pack = pack_number(w), packs = w.channels / N, sample = blockIdx.y;
  if (row_number(w) >= w.rows || pack >= packs) return;
  const float* own = moments + (shared_moments ? 0 : sample * (w.channels / each) * 2);
  float gain[N], shift[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int64_t channel = pack * N + i, group = channel / each;
    gain[i] = weight[channel] * rsqrtf(own[2 * group + 1] + epsilon);
    shift[i] = bias[channel] - own[2 * group] * gain[i];
  }
  const int64_t from = w.pixels * blockIdx.x / gridDim.x, to = w.pixels * (blockIdx.x + 1) / gridDim.x;
  for (int64_t p = from + row_number(w); p < to; p += w.rows) {
    const int64_t at = (sample * w.pixels + p) * packs + pack;
    const Pack<T, N> in = x[at];
    Pack<T, N> out;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float v = fmaf(to_float(in.at[i]), gain[i], shift[i]);
      assign(out.at[i], silu ? v / (1.0f + __expf(-v)) : v);
    }
    y[at] = out;
  }
}

// body(width) with the widest pack of 16 bytes at most that channels and addresses allow.
template <class T, class Body>
void with_pack(int64_t channels, bool sixteen_aligned, Body&& body) {
  constexpr int widest = static_cast<int>(16 / sizeof(T));
  if (channels % widest == 0 && sixteen_aligned)
    body(std::integral_constant<int, widest>());
  else
    body(std::integral_constant<int, 1>());
}

void group_moments(View x, View moments, int64_t n, int64_t pixels, int64_t channels, int64_t groups) {
  with_float(x.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    with_pack<T>(channels, aligned(x, 16), [&](auto width) {
      constexpr int N = decltype(width)::value;
      const Walk walk = make_walk<N>(pixels, channels);
      const int64_t parts = parts_of(walk, n), each = channels / groups;
      const Scratch sums(static_cast<size_t>(n * parts * 2 * channels) * sizeof(float));
      launch(channel_sums<T, N>, grid_of<N>(walk, parts, n), dim3(threads), 0, x.as<Pack<T, N>>(), x.as<T>(),
             sums.as<float>(), walk, each);
      launch(finish_groups<T>, dim3(static_cast<unsigned>(groups), static_cast<unsigned>(n)), dim3(threads), 0,
             x.as<T>(), sums.as<float>(), moments.as<float>(), parts, pixels, channels, each);
    });
  });
}

void normalize_groups(View x, View moments, bool shared_moments, View weight, View bias, float epsilon,
                      bool silu, View y, int64_t n, int64_t pixels, int64_t channels, int64_t groups) {
  with_float(x.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    with_pack<T>(channels, aligned(x, 16) && aligned(y, 16), [&](auto width) {
      constexpr int N = decltype(width)::value;
      const Walk walk = make_walk<N>(pixels, channels);
      launch(normalize<T, N>, grid_of<N>(walk, parts_of(walk, n), n), dim3(threads), 0, x.as<Pack<T, N>>(),
             moments.as<float>(), shared_moments, weight.as<float>(), bias.as<float>(), epsilon, silu,
             y.as<Pack<T, N>>(), walk, channels / groups);
    });
  });
}

// A thread a pixel: neighbours read neighbours of each plane. Pictures and latents have few channels.
template <class From, class To>
__global__ void gather_channels(const From* planes, To* pixels, int64_t channels, int64_t area, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const From* from = planes + i / area * channels * area + i % area;
    for (int64_t c = 0; c < channels; ++c) assign(pixels[i * channels + c], to_float(from[c * area]));
  }
}

template <class From, class To>
__global__ void scatter_channels(const From* pixels, To* planes, int64_t channels, int64_t area, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    To* to = planes + i / area * channels * area + i % area;
    for (int64_t c = 0; c < channels; ++c) assign(to[c * area], to_float(pixels[i * channels + c]));
  }
}

template <class Body>
void with_types(View from, View to, Body&& body) {
  with_float(from.dtype,
             [&](auto* source) { with_float(to.dtype, [&](auto* target) { body(source, target); }); });
}

void to_pixels(View planes, View pixels, int64_t n, int64_t channels, int64_t area) {
  with_types(planes, pixels, [&](auto* from, auto* to) {
    using From = Pointee<decltype(from)>;
    using To = Pointee<decltype(to)>;
    launch_over(n * area, gather_channels<From, To>, planes.as<From>(), pixels.as<To>(), channels, area,
                n * area);
  });
}

void to_planes(View pixels, View planes, int64_t n, int64_t channels, int64_t area) {
  with_types(pixels, planes, [&](auto* from, auto* to) {
    using From = Pointee<decltype(from)>;
    using To = Pointee<decltype(to)>;
    launch_over(n * area, scatter_channels<From, To>, pixels.as<From>(), planes.as<To>(), channels, area,
                n * area);
  });
}

// What only moves bytes moves them in the largest unit that a pixel is made of.
template <class Body>
void with_unit(int64_t bytes, bool sixteen_aligned, Body&& body) {
  if (bytes % 16 == 0 && sixteen_aligned)
    body(static_cast<uint4*>(nullptr));
  else if (bytes % 4 == 0)
    body(static_cast<uint32_t*>(nullptr));
  else
    body(static_cast<uint16_t*>(nullptr));
}

// Where one of two pictures lies in the other: pixel (y, x) is the larger one's (row + step·y, column +
// step·x).
struct Placement {
  int64_t height, width, large_height, large_width, row, column, step;
};

// A block a row of the small picture at a time.
template <class Unit>
__global__ void place(const Unit* small, Unit* large, Placement p, int units, int64_t rows) {
  const int width = static_cast<int>(p.width) * units;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t at =
        (row / p.height * p.large_height + p.row + p.step * (row % p.height)) * p.large_width + p.column;
    const Unit* from = small + row * width;
    Unit* to = large + at * units;
    for (int i = threadIdx.x; i < width; i += threads) to[i / units * (p.step * units) + i % units] = from[i];
  }
}

// A block a row of the large picture at a time.
template <class Unit>
__global__ void pad(const Unit* small, Unit* large, Placement p, int units, int64_t rows) {
  const int width = static_cast<int>(p.width) * units, left = static_cast<int>(p.column) * units,
            large_width = static_cast<int>(p.large_width) * units;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t y = row % p.large_height - p.row;
    const bool inside = y >= 0 && y < p.height;
    const Unit* from = small + (row / p.large_height * p.height + y) * width;
    Unit* to = large + row * large_width;
    for (int i = threadIdx.x; i < large_width; i += threads)
      to[i] = inside && i >= left && i < left + width ? from[i - left] : Unit{};
  }
}

// For kernels of which each block does some rows.
unsigned blocks_for(int64_t rows) {
  const int64_t most = int64_t{16} * multiprocessors();
  return static_cast<unsigned>(rows < most ? rows : most);
}

void interleave(View part, int64_t row, int64_t column, View picture, int64_t n, int64_t height, int64_t width,
                int64_t channels) {
  const int64_t bytes = channels * static_cast<int64_t>(size_of(part.dtype));
  with_unit(bytes, aligned(part, 16) && aligned(picture, 16), [&](auto* unit) {
    using Unit = Pointee<decltype(unit)>;
    launch(place<Unit>, dim3(blocks_for(n * height)), dim3(threads), 0, part.as<Unit>(), picture.as<Unit>(),
           Placement{height, width, 2 * height, 2 * width, row, column, 2},
           static_cast<int>(bytes / static_cast<int64_t>(sizeof(Unit))), n * height);
  });
}

struct Window {
  int64_t height, width, channels, size, stride, padding, out_height, out_width;
};

__global__ void pool_all(const float* x, float* y, Window w, bool largest, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const int64_t channel = i % w.channels, pixel = i / w.channels,
                  column = pixel % w.out_width * w.stride - w.padding,
                  row = pixel / w.out_width % w.out_height * w.stride - w.padding,
                  sample = pixel / w.out_width / w.out_height;
    const int64_t left = max(column, int64_t{0}), right = min(column + w.size, w.width),
                  top = max(row, int64_t{0}), bottom = min(row + w.size, w.height);
    float result = largest ? -INFINITY : 0.0f;
    for (int64_t r = top; r < bottom; ++r)
      for (int64_t c = left; c < right; ++c) {
        const float v = x[((sample * w.height + r) * w.width + c) * w.channels + channel];
        result = largest ? fmaxf(result, v) : result + v;
      }
    y[i] = largest ? result : result / static_cast<float>((bottom - top) * (right - left));
  }
}

void pool(View x, View y, bool largest, int64_t n, int64_t height, int64_t width, int64_t channels,
          int64_t size, int64_t stride, int64_t padding, int64_t out_height, int64_t out_width) {
  const int64_t count = n * out_height * out_width * channels;
  launch_over(count, pool_all, x.as<float>(), y.as<float>(),
              Window{height, width, channels, size, stride, padding, out_height, out_width}, largest, count);
}

// Where a target pixel lies between two source pixels, and how near to the second: by corners, not centres.
struct Between {
  int64_t first, second;
  float share;
};
__device__ Between between(int64_t i, int64_t from, int64_t to) {
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  const float at = static_cast<float>(i) * scale;
  const int64_t first = min(static_cast<int64_t>(at), from - 1);
  return {first, min(first + 1, from - 1), at - static_cast<float>(first)};
}

struct Resize {
  int64_t height, width, channels, out_height, out_width;
};

__global__ void resize_all(const float* x, float* y, Resize r, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const int64_t channel = i % r.channels, pixel = i / r.channels, sample = pixel / r.out_width / r.out_height;
    const Between across = between(pixel % r.out_width, r.width, r.out_width);
    const Between down = between(pixel / r.out_width % r.out_height, r.height, r.out_height);
    const float* from = x + sample * r.height * r.width * r.channels + channel;
    const auto at = [&](int64_t row, int64_t column) { return from[(row * r.width + column) * r.channels]; };
    const float above =
        at(down.first, across.first) * (1 - across.share) + at(down.first, across.second) * across.share;
    const float below =
        at(down.second, across.first) * (1 - across.share) + at(down.second, across.second) * across.share;
    y[i] = above * (1 - down.share) + below * down.share;
  }
}

void resize_bilinear(View x, View y, int64_t n, int64_t height, int64_t width, int64_t channels,
                     int64_t out_height, int64_t out_width) {
  const int64_t count = n * out_height * out_width * channels;
  launch_over(count, resize_all, x.as<float>(), y.as<float>(),
              Resize{height, width, channels, out_height, out_width}, count);
}

template <class T>
__global__ void add_bias_all(const T* bias, bool relu, T* y, int64_t channels, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const float v = to_float(y[i]) + to_float(bias[i % channels]);
    assign(y[i], relu && v < 0.0f ? 0.0f : v);
  }
}

}  // namespace

void pad_picture(const ops::GpuConv& c, View x, View padded) {
  const int64_t bytes = c.in * static_cast<int64_t>(size_of(x.dtype));
  const Placement where{c.height, c.width, c.height + c.top + c.bottom, c.width + c.left + c.right, c.top,
                        c.left,   1};
  with_unit(bytes, aligned(x, 16) && aligned(padded, 16), [&](auto* unit) {
    using Unit = Pointee<decltype(unit)>;
    const int64_t rows = c.n * where.large_height;
    launch(pad<Unit>, dim3(blocks_for(rows)), dim3(threads), 0, x.as<Unit>(), padded.as<Unit>(), where,
           static_cast<int>(bytes / static_cast<int64_t>(sizeof(Unit))), rows);
  });
}

void add_bias(View bias, bool relu, View y, int64_t pixels, int64_t channels) {
  with_float(y.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch_over(pixels * channels, add_bias_all<T>, bias.as<T>(), relu, y.as<T>(), channels, pixels * channels);
  });
}

void fill(ops::PictureKernels& table) {
  table = {convolve, group_moments, normalize_groups, to_pixels, to_planes, interleave, pool, resize_bilinear};
}

}  // namespace linnet::cuda
