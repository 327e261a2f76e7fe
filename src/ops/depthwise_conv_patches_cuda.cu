// The convolution of 5×5 of 16-bit types: a block takes 32 channels, 8 a warp, and walks down columns of tiles,
// copies of the next tile's rows running beside the products. It moves two values an element, one of which
// comes up to a quarter more often, as tiles overlap.
#include "ops/depthwise_conv_cuda.h"
#include "ops/depthwise_conv_patches_cuda.cuh"

namespace linnet::cuda {
namespace {

using namespace depthwise;

// Of a block: warps, and where things lie in shared memory, in elements.
struct Layout : PatchTile {
  static constexpr int warps = packs, threads = warps * warp_size, blocks = 3;
  static constexpr int quads = 4;  // two for this tile, and two for the next, if it begins anew elsewhere
  static constexpr int results = quads * quad, fragments = results + tokens * channels;
  static constexpr int fragments_size = warps * static_cast<int>(sizeof(TapFragments)) / 2;
  static constexpr int biases = fragments + fragments_size;
  static constexpr size_t bytes = biases * 2 + channels * sizeof(float);
  static_assert(columns == threads / packs, "each thread copies packs of one column, few one more");
};

template <class T>
struct PatchesBlock {
  __device__ PatchesBlock(const ConvTask<T>& task_, char* memory)
      : task(task_), values(static_cast<T*>(static_cast<void*>(memory))), results(values + Layout::results),
        fragments(static_cast<TapFragments*>(static_cast<void*>(values + Layout::fragments))),
        biases(static_cast<float*>(static_cast<void*>(values + Layout::biases))),
        group(static_cast<int>(blockIdx.x) % task.groups), lane(static_cast<int>(threadIdx.x) % warp_size),
        warp(static_cast<int>(threadIdx.x) / warp_size),
        own_pack(static_cast<int>(threadIdx.x) % Layout::packs),
        own_column(static_cast<int>(threadIdx.x) / Layout::packs) {
    float* const taps = static_cast<float*>(static_cast<void*>(memory));  // before values come
    const int head_channel = group * Layout::channels % task.head_size;
    for (int i = static_cast<int>(threadIdx.x); i < Layout::channels * patch_area; i += Layout::threads) {
      const int tap = i % patch_area, channel = (head_channel + i / patch_area) % task.head_size;
      taps[i] = task.weight[channel * patch_area + (task.flipped ? patch_area - 1 - tap : tap)];
    }
    if (threadIdx.x < Layout::channels)
      biases[threadIdx.x] =
          task.bias ? task.bias[(head_channel + static_cast<int>(threadIdx.x)) % task.head_size] : 0.0f;
    __syncthreads();
    const float* const own = taps + warp * lane_channels * patch_area;
    store_tap_fragments<T>(fragments[warp], [&](int c, int tap) { return own[c * patch_area + tap]; });
    __syncthreads();
  }

  // Where this thread copies from, of the next row, and whether there is such a column.
  struct Source {
    const T* from;
    int row;
    bool inside, beyond_inside;  // its column, and the one that is a tile further
  };
  __device__ Source source_of(const Place& place) const {
    const int column = place.column - patch_kernel / 2 + own_column, row = place.top - patch_kernel / 2;
    const bool in_width = place.channel + own_pack * 8 < task.width;
    const auto inside = [&](int x) {
      return in_width && static_cast<unsigned>(x) < static_cast<unsigned>(task.columns);
    };
    return {task.values.first + (place.token + column) * task.values.stride + row * task.values.row_stride +
                place.channel + own_pack * 8,
            row, inside(column), inside(column + Layout::columns)};
  }

  // Begins to copy what a tile needs and the tile before it in the same piece has not.
  __device__ void load(Source& source, bool begins) {
    const int beyond = Layout::columns * task.values.stride;
    for (int quad = begins ? 0 : 1; quad < 2; ++quad) {
      T* const to = values + loaded * Layout::quad + Layout::place_in_row(own_column, own_pack);
      loaded = (loaded + 1) % Layout::quads;
#pragma unroll
      for (int y = 0; y < patch; ++y) {
        const bool there = static_cast<unsigned>(source.row + y) < static_cast<unsigned>(task.rows);
        copy_16(to + y * Layout::row_size, source.from, there && source.inside);
        if (own_column < patch_kernel - 1)
          copy_16(to + y * Layout::row_size + Layout::columns / 2 * Layout::pair_size, source.from + beyond,
                  there && source.beyond_inside);
        source.from += task.values.row_stride;
      }
      source.row += patch;
    }
    commit_copies();
  }

  // Where a token's pack of results waits, swizzled as values are, for lanes that write at once and those that
  // read.
  __device__ T* result_at(int row, int column, int which) const {
    const int pair = column / 2;
    return results + (row * (Layout::columns / 2) + pair) * Layout::pair_size +
           ((column % 2 * Layout::packs + which) ^ (pair % 4 | row % 2 * 4)) * lane_channels;
  }

  __device__ void multiply(int first_quad) const {
    const int column = lane / 4 * patch + lane % 4 * 2;  // the first of those that this lane reads
    float sums[lane_channels][4];
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      const float bias = biases[warp * lane_channels + c];
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[c][i] = bias;
    }
    convolve_patches<T>(
        values + first_quad * Layout::quad, values + (first_quad + 1) % Layout::quads * Layout::quad,
        Layout::place_in_row(column, warp), Layout::place_in_row(column + 1, warp), fragments[warp], sums);
    for_patch_results([&](int y, int x, int i) {
      *static_cast<uint4*>(static_cast<void*>(result_at(y, x, warp))) =
          make_uint4(pack<T>(sums[0][i], sums[1][i]), pack<T>(sums[2][i], sums[3][i]),
                     pack<T>(sums[4][i], sums[5][i]), pack<T>(sums[6][i], sums[7][i]));
    });
  }

  // Where this thread writes, of the next tile, and how many rows and whether columns are left of the piece.
  struct Target {
    T* to;
    int rows;
  };
  __device__ Target target_of(const Place& place) const {
    const int column = place.column + own_column;
    const bool inside = place.channel + own_pack * 8 < task.width && column < task.columns;
    return {task.out +
                (place.token + static_cast<int64_t>(place.top) * task.columns + column) * task.out_stride +
                place.channel + own_pack * 8,
            inside ? place.bottom - place.top : 0};
  }
  __device__ void store(Target& target) const {
#pragma unroll
    for (int y = 0; y < patch; ++y) {
      if (y < target.rows) store_pack(target.to, load_pack<8>(result_at(y, own_column, own_pack)));
      target.to += task.out_row_stride;
    }
    target.rows -= patch;
  }

  __device__ void run() {
    const int parts = static_cast<int>(gridDim.x) / task.groups;
    int piece = static_cast<int>(blockIdx.x) / task.groups, first_quad = 0;
    Place place = place_of<Layout>(task, group, piece);
    Source source = source_of(place);
    load(source, true);
    while (true) {
      Target target = target_of(place);
      for (int left = (place.bottom - place.top + patch - 1) / patch; left > 0; --left) {
        wait_for_copies<0>();
        __syncthreads();  // all have this tile, and have stored the results of the one before
        if (left > 1) {
          load(source, false);
        } else if ((piece += parts) < task.pieces) {
          place = place_of<Layout>(task, group, piece);
          source = source_of(place);
          load(source, true);
        }
        multiply(first_quad);
        __syncthreads();
        store(target);
        first_quad = (first_quad + (left > 1 ? 1 : 2)) % Layout::quads;
      }
      if (piece >= task.pieces) return;
    }
  }

  const ConvTask<T>& task;
  T *values, *results;
  TapFragments* fragments;
  float* biases;
  // own_pack and own_column: which channels and columns this thread copies.
  int group, lane, warp, own_pack, own_column, loaded = 0;
};

template <class T>
__global__ void __launch_bounds__(Layout::threads, Layout::blocks) convolve_by_patches(ConvTask<T> task) {
  if (!products_built) return;
  LINNET_DYNAMIC_SHARED(memory);
  PatchesBlock<T> block(task, memory);
  block.run();
}

// Cuts columns of tiles so that the fullest multiprocessor has least to do; a piece's first rows cost half
// a tile.
template <class T>
void cut(ConvTask<T>& task, int64_t batch) {
  task.groups = static_cast<int>(divide_up(task.width, Layout::channels));
  task.across = static_cast<int>(divide_up(task.columns, Layout::columns));
  const int64_t tiles = divide_up(task.rows, patch), room = int64_t{Layout::blocks} * multiprocessors();
  int64_t least = INT64_MAX;
  for (int64_t cuts = 1; cuts <= tiles; ++cuts) {
    const int64_t height = divide_up(tiles, cuts), down = divide_up(tiles, height);
    const int64_t walked = divide_up(batch * task.across * down * task.groups, room) * (2 * height + 1);
    if (walked >= least) continue;
    least = walked;
    task.height = static_cast<int>(height) * patch;
    task.down = static_cast<int>(down);
  }
  task.pieces = static_cast<int>(batch) * task.down * task.across;
}

template <class T>
void convolve(const DepthwiseConv& conv, const ops::ColumnView& in, View weight, View bias, bool flipped,
              const ops::ColumnView& out) {
  ConvTask<T> task{};
  task.rows = static_cast<int>(conv.rows);
  task.columns = static_cast<int>(conv.columns);
  task.width = static_cast<int>(conv.width);
  task.head_size = static_cast<int>(conv.head_size);
  task.values = {in.view.as<T>() + in.first, static_cast<int>(in.stride), conv.columns * in.stride};
  task.out = out.view.as<T>() + out.first;
  task.out_stride = static_cast<unsigned>(out.stride);
  task.out_row_stride = conv.columns * out.stride;
  task.weight = weight.as<float>();
  task.bias = bias.as<float>();
  task.flipped = flipped;
  cut(task, conv.batch);
  const int64_t each =
      divide_up(int64_t{task.pieces} * task.groups, int64_t{Layout::blocks} * multiprocessors());
  launch(convolve_by_patches<T>, dim3(static_cast<unsigned>(task.groups * divide_up(task.pieces, each))),
         dim3(Layout::threads), Layout::bytes, task);
}

}  // namespace

bool patches_fit(const DepthwiseConv& conv) {
  return conv.kernel == patch_kernel && conv.columns > Layout::columns / 2 && conv.dtype != DType::f32 &&
         architecture_of_kernels() >= 80;
}

void depthwise_conv_by_patches(const DepthwiseConv& conv, const ops::ColumnView& in, View weight, View bias,
                               bool flipped, const ops::ColumnView& out) {
  with_half(conv.dtype,
            [&](auto* type) { convolve<Pointee<decltype(type)>>(conv, in, weight, bias, flipped, out); });
}

}  // namespace linnet::cuda
