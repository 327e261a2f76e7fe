// Moves and repeats values. Everything here is bound by memory; what each kernel moves stands beside it.
#include "cuda/cells.h"
#include "cuda/kernels.h"
#include "cuda/runtime.h"
#include "ops/reduce_cuda.h"

namespace linnet::cuda {
namespace {

using ops::PatchGrid;

// Where a token's value lies in the picture; tokens of all samples are counted through.
__device__ int64_t pixel_of(const PatchGrid& grid, bool channel_last, int64_t token, int64_t value) {
  const int64_t p = grid.patch, tokens = grid.rows * grid.columns;
  const int64_t channel = channel_last ? value % grid.channels : value / (p * p);
  const int64_t within = channel_last ? value / grid.channels : value % (p * p);
  const int64_t y = token % tokens / grid.columns * p + within / p;
  const int64_t x = token % grid.columns * p + within % p;
  return ((token / tokens * grid.channels + channel) * grid.rows * p + y) * grid.columns * p + x;
}

// Latents are small, so the same walk over the tokens does for both directions. 8 bytes a value.
template <bool ToTokens>
__global__ void move_patches(PatchGrid grid, bool channel_last, float* picture, float* tokens) {
  const int64_t width = grid.channels * grid.patch * grid.patch;
  for_cells(grid.batch * grid.rows * grid.columns, width, [&](int64_t token, int64_t value) {
    float& pixel = picture[pixel_of(grid, channel_last, token, value)];
    float& own = tokens[token * width + value];
    if constexpr (ToTokens)
      own = pixel;
    else
      pixel = own;
  });
}

template <bool ToTokens>
void launch_patches(const PatchGrid& grid, bool channel_last, View picture, View tokens) {
  launch_cells(grid.batch * grid.rows * grid.columns, grid.channels * grid.patch * grid.patch,
               move_patches<ToTokens>, grid, channel_last, picture.as<float>(), tokens.as<float>());
}

void to_patches(PatchGrid grid, bool channel_last, View picture, View tokens) {
  launch_patches<true>(grid, channel_last, picture, tokens);
}

void from_patches(PatchGrid grid, bool channel_last, View tokens, View picture) {
  launch_patches<false>(grid, channel_last, picture, tokens);
}

// Widths in units, of which `count` are copied; each is read and written once.
template <class Unit>
__global__ void copy_units(const Unit* __restrict__ from, int64_t from_width, Unit* __restrict__ to,
                           int64_t to_width, int64_t count, int64_t rows) {
  for_cells(rows, count, [&](int64_t row, int64_t i) { to[row * to_width + i] = from[row * from_width + i]; });
}

// Calls copy(Unit) with the widest accesses that all of these sizes and addresses, in bytes, are multiples of.
template <class Copy>
void with_widest_unit(std::initializer_list<uint64_t> multiples, const Copy& copy) {
  uint64_t bits = 16;
  for (const uint64_t multiple : multiples) bits |= multiple;
  switch (bits & (~bits + 1)) {
    case 16: return copy(uint4{});
    case 8: return copy(uint2{});
    case 4: return copy(uint32_t{});
    case 2: return copy(uint16_t{});
    default: return copy(uint8_t{});
  }
}

uint64_t bits_of(const void* address) { return reinterpret_cast<uintptr_t>(address); }
uint64_t bits_of(int64_t bytes) { return static_cast<uint64_t>(bytes); }

void copy_columns(View from, int64_t from_width, int64_t first, View to, int64_t to_width, int64_t into,
                  int64_t count, int64_t rows, int64_t element) {
  const void* const source = from.as<char>() + first * element;
  void* const target = to.as<char>() + into * element;
  with_widest_unit({bits_of(from_width * element), bits_of(to_width * element), bits_of(count * element),
                    bits_of(source), bits_of(target)},
                   [&]<class Unit>(Unit) {
                     constexpr int64_t bytes = sizeof(Unit);
                     launch_cells(rows, count * element / bytes, copy_units<Unit>,
                                  static_cast<const Unit*>(source), from_width * element / bytes,
                                  static_cast<Unit*>(target), to_width * element / bytes,
                                  count * element / bytes, rows);
                   });
}

struct Parts {
  void* at[ops::ArrangeKernels::most_parts];
};

// The same of all parts at once: a part of adaLN is too small to be worth a kernel of its own.
template <class Unit>
__global__ void split_units(const Unit* __restrict__ from, const __grid_constant__ Parts parts, int64_t count,
                            int64_t width, int64_t rows) {
  for_cells(rows, count * width, [&](int64_t row, int64_t i) {
    Unit* const to = static_cast<Unit*>(parts.at[i / width]);
    to[row * width + i % width] = from[row * count * width + i];
  });
}

void split_columns(View from, const View* views, int64_t count, int64_t part_width, int64_t rows,
                   int64_t element) {
  Parts parts{};
  uint64_t bits = bits_of(from.data);
  for (int64_t k = 0; k < count; ++k) bits |= bits_of(parts.at[k] = views[k].data);
  with_widest_unit({bits, bits_of(part_width * element)}, [&]<class Unit>(Unit) {
    launch_cells(rows, count * part_width * element / int64_t{sizeof(Unit)}, split_units<Unit>,
                 from.as<const Unit>(), parts, count, part_width * element / int64_t{sizeof(Unit)}, rows);
  });
}

// A tile goes through shared memory, so that both its reads and its writes run along rows. 8 bytes a value.
constexpr int tile_size = 32, tile_depth = 8;

__global__ void transpose_tiles(const float* x, float* y, int64_t rows, int64_t columns, int64_t across) {
  __shared__ float tile[tile_size][tile_size + 1];  // a column of it lies in 32 banks
  const int64_t top = blockIdx.x / across * tile_size, left = blockIdx.x % across * tile_size;
  const int i = static_cast<int>(threadIdx.x);
  for (int j = static_cast<int>(threadIdx.y); j < tile_size; j += tile_depth)
    if (top + j < rows && left + i < columns) tile[j][i] = x[(top + j) * columns + left + i];
  __syncthreads();
  for (int j = static_cast<int>(threadIdx.y); j < tile_size; j += tile_depth)
    if (left + j < columns && top + i < rows) y[(left + j) * rows + top + i] = tile[i][j];
}

void transpose(View x, View y, int64_t rows, int64_t columns) {
  const int64_t down = divide_up(rows, tile_size), across = divide_up(columns, tile_size);
  launch(transpose_tiles, dim3(static_cast<unsigned>(down * across)), dim3(tile_size, tile_depth), 0,
         x.as<float>(), y.as<float>(), rows, columns, across);
}

// 8 bytes a value, and `added` once for each row of threads; N values at once.
template <int N>
__global__ void add_to_rows(const float* __restrict__ x, const float* __restrict__ added, float* __restrict__ y,
                            int64_t rows, int64_t columns) {
  for_cells(rows, columns / N, [&](int64_t row, int64_t pack) {
    Pack<float, N> values = load_pack<N>(x + row * columns + pack * N);
    const Pack<float, N> more = load_pack<N>(added + pack * N);
#pragma unroll
    for (int i = 0; i < N; ++i) values.at[i] += more.at[i];
    store_pack(y + row * columns + pack * N, values);
  });
}

void add_repeated(View x, View added, View y, int64_t n, int64_t period) {
  const bool packs = has_packs(x, period, 4) && has_packs(added, period, 4) && has_packs(y, period, 4);
  const int64_t rows = n / period;
  launch_cells(rows, packs ? period / 4 : period, packs ? add_to_rows<4> : add_to_rows<1>, x.as<float>(),
               added.as<float>(), y.as<float>(), rows, period);
}

void sum_tokens(View x, View y, int64_t batch, int64_t tokens, int64_t d, float factor) {
  sum_rows_of_groups(x, y, batch, tokens, d, factor);
}

// Writes 4 bytes a value.
__global__ void repeat_rows(const float* __restrict__ g, float* __restrict__ dx, int64_t rows, int64_t times,
                            int64_t d, float factor) {
  for_cells(rows, d, [&](int64_t row, int64_t j) { dx[row * d + j] = g[row / times * d + j] * factor; });
}

void spread_tokens(View g, View dx, int64_t batch, int64_t tokens, int64_t d, float factor) {
  launch_cells(batch * tokens, d, repeat_rows, g.as<float>(), dx.as<float>(), batch * tokens, tokens, d,
               factor);
}

template <class T>
__global__ void gather(const T* table, const int64_t* indices, float* y, int64_t n, int64_t d) {
  for_cells(n, d, [&](int64_t i, int64_t j) { y[i * d + j] = to_float(table[indices[i] * d + j]); });
}

void gather_rows(View table, View indices, View y, int64_t n, int64_t d) {
  with_float(table.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch_cells(n, d, gather<T>, table.as<T>(), indices.as<int64_t>(), y.as<float>(), n, d);
  });
}

// Where an index occurs first, one thread adds up all rows of g with that index, in their order; the others
// have nothing to do. Quadratic in n, but n is a batch of classes or a text.
__global__ void scatter(const float* g, const int64_t* indices, float* dtable, int64_t n, int64_t d) {
  for_cells(n, d, [&](int64_t i, int64_t j) {
    const int64_t index = indices[i];
    float sum = 0;
    for (int64_t k = 0; k < n; ++k)
      if (indices[k] == index) {
        if (k < i) return;
        sum += g[k * d + j];
      }
    dtable[index * d + j] += sum;
  });
}

void scatter_rows(View g, View indices, View dtable, int64_t n, int64_t d) {
  launch_cells(n, d, scatter, g.as<float>(), indices.as<int64_t>(), dtable.as<float>(), n, d);
}

__global__ void waves(const float* t, float* y, int64_t n, int64_t half) {
  for_cells(n, half, [&](int64_t k, int64_t i) {
    const float frequency = expf(-logf(10000.0f) * static_cast<float>(i) / static_cast<float>(half));
    y[k * 2 * half + i] = cosf(t[k] * frequency);
    y[k * 2 * half + half + i] = sinf(t[k] * frequency);
  });
}

void timestep_embedding(View t, View y, int64_t n, int64_t width) {
  launch_cells(n, width / 2, waves, t.as<float>(), y.as<float>(), n, width / 2);
}

}  // namespace

void fill(ops::ArrangeKernels& table) {
  table = {to_patches, from_patches,  copy_columns, split_columns, transpose,         add_repeated,
           sum_tokens, spread_tokens, gather_rows,  scatter_rows,  timestep_embedding};
}

}  // namespace linnet::cuda
