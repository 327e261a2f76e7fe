// The gradient of the taps of the 5×5 convolution, and of its bias, of 16-bit types by tensor cores. As in
// depthwise_conv_patches_cuda.cuh, a patch is 4×2 neighbouring results of a channel, which 8×6 values were
// needed for: the products of each of these values with each of the patch's gradients are a 48×8 matrix, whose
// diagonals add up to the taps' gradients. Over 16 patches, a product's depth, it is a sum of three
// instructions; a warp keeps the sums of its 8 channels in registers to the end.
#include "ops/depthwise_conv_cuda.h"
#include "ops/depthwise_conv_patches_cuda.cuh"

namespace linnet::cuda {
namespace {

using namespace depthwise;

// Of a block: where things lie in shared memory, in elements, and in the end sums, in bytes.
struct Layout : RingTile {
  static constexpr int blocks = 2;
  static constexpr int g_row_size = columns * channels, g_size = patch * g_row_size;  // of a tile
  static constexpr int first_g = ring, tiles_of_g = 2;
  static constexpr int values_of_patch = 2 * patch * (patch_kernel + 1), results_of_patch = 2 * patch;
  static constexpr int sums_of_channel = values_of_patch * results_of_patch;
  static constexpr size_t bytes = (ring + tiles_of_g * g_size) * 2;
  static_assert(bytes >= channels * sums_of_channel * sizeof(float));

  // As PatchTile's, but that lanes beside each other read every eighth column.
  __device__ static int place_in_row(int column, int pack) {
    const int at = column * packs + pack;  // in packs
    return at / 8 * pair_size + (at % 8 ^ column / 8 % 4) * lane_channels;
  }
};

template <class T>
struct TapsBlock {
  __device__ TapsBlock(const ConvTask<T>& task_, char* memory)
      : task(task_), values(task_, memory), all_g(values.first + Layout::first_g),
        all_sums(static_cast<float*>(static_cast<void*>(memory))),
        group(static_cast<int>(blockIdx.x) % task.groups), part(static_cast<int>(blockIdx.x) / task.groups),
        lane(static_cast<int>(threadIdx.x) % warp_size), warp(static_cast<int>(threadIdx.x) / warp_size) {}

  __device__ T* g_of(int tile) const { return all_g + tile % Layout::tiles_of_g * Layout::g_size; }

  // Begins to copy a tile's gradients from a row on; zeros where the piece has none.
  __device__ void load_g(const Place& place, int row) {
    T* const to = g_of(tiles_loaded++) + Layout::place_in_row(values.own_column, values.own_pack);
    const int column = place.column + values.own_column, channel = place.channel + values.own_pack * 8;
    const T* const from =
        task.g.first + (place.token + column) * task.g.stride + row * task.g.row_stride + channel;
#pragma unroll
    for (int y = 0; y < patch; ++y)
      copy_16(to + y * Layout::g_row_size, from + y * task.g.row_stride,
              channel < task.width && column < task.columns && row + y < place.bottom);
  }

  __device__ static uint4 words(const T* at) {
    return *static_cast<const uint4*>(static_cast<const void*>(at));
  }
  __device__ static unsigned word(const uint4& x, int c) {
    return c < 2 ? x.x : c < 4 ? x.y : c < 6 ? x.z : x.w;
  }

  // The gradients of 16 patches as a product's right fragments, and their sum.
  __device__ void load_right(const T* g, unsigned (&right)[lane_channels][2]) {
    const int column = lane % 4 * 2 * patch + lane / 4 % 4;
    const T* const row = g + lane / 16 * Layout::g_row_size;
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // patches, and those below
      const T* const at = row + 2 * i * Layout::g_row_size;
      const uint4 left_words = words(at + Layout::place_in_row(column, warp)),
                  right_words = words(at + Layout::place_in_row(column + patch, warp));
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) {
        right[c][i] = pair_of(word(left_words, c), word(right_words, c), c % 2);
        const float2 both = unpack<T>(right[c][i]);
        bias[c] += both.x + both.y;
      }
    }
  }

  __device__ void multiply(int tile, int first_quad) {
    unsigned right[lane_channels][2];
    load_right(g_of(tile), right);
    const int column = lane % 4 * 2 * patch + lane / 4;  // of a patch's values, and four further of the next's
    const int left_at = Layout::place_in_row(column, warp),
              right_at = Layout::place_in_row(column + patch, warp);
    unsigned former[lane_channels][2];  // values of two rows
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const T* const row = values.quad(first_quad + j / 2) + j % 2 * 2 * Layout::row_size;
      const uint4 lefts[2] = {words(row + left_at), words(row + Layout::row_size + left_at)};
      const uint4 rights[2] = {words(row + right_at), words(row + Layout::row_size + right_at)};
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) {
        unsigned both[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) both[i] = pair_of(word(lefts[i], c), word(rights[i], c), c % 2);
        if (j > 0) {
          const unsigned rows[4] = {former[c][0], former[c][1], both[0], both[1]};
          mma<T>(sums[c][j > 0 ? j - 1 : 0], rows, right[c]);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) former[c][i] = both[i];
      }
    }
  }

  // The matrix of values and gradients of each of a warp's channels, for all lanes.
  __device__ void keep_sums() const {
    float* const own = all_sums + warp * lane_channels * Layout::sums_of_channel;
#pragma unroll
    for (int c = 0; c < lane_channels; ++c)
#pragma unroll
      for (int i = 0; i < 3; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          store_pack(own + c * Layout::sums_of_channel +
                         (16 * i + 8 * half + lane / 4) * Layout::results_of_patch + lane % 4 * 2,
                     Pack<float, 2>{{sums[c][i][2 * half], sums[c][i][2 * half + 1]}});
  }

  // Of a channel of the block; a value's number counts rows of 8.
  __device__ float tap_of(int channel, int tap) const {
    const float* const matrix = all_sums + channel * Layout::sums_of_channel;
    float sum = 0;
#pragma unroll
    for (int y = 0; y < 2; ++y)
#pragma unroll
      for (int x = 0; x < patch; ++x) {
        const int value = (tap / patch_kernel + y) * 2 * patch + tap % patch_kernel + x;
        sum += matrix[value * Layout::results_of_patch + y * patch + x];
      }
    return sum;
  }

  __device__ void put_share(int tap, int channel, float sum) const {
    const int column = group * Layout::channels + channel;
    if (column < task.width)
      task.shares[(static_cast<int64_t>(part) * (patch_area + 1) + tap) * task.width + column] = sum;
  }

  __device__ void store() const {
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      const float sum = warp_sum(bias[c]);
      if (lane == 0) put_share(patch_area, warp * lane_channels + c, sum);
    }
    __syncthreads();  // all have read what sums take the place of
    keep_sums();
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < Layout::channels * patch_area; i += Layout::threads)
      put_share(i / Layout::channels, i % Layout::channels, tap_of(i % Layout::channels, i / Layout::channels));
  }

  __device__ void run() {
    const int parts = static_cast<int>(gridDim.x) / task.groups;
    int piece = part, first_quad = 0, tile = 0;
    Place place = place_of<Layout>(task, group, piece);
    values.begin(place);
    load_g(place, place.top);
    commit_copies();
    for (int row = place.top; true; ++tile) {
      wait_for_copies<0>();
      __syncthreads();  // all have this tile, and have done with the one before
      const bool ends = (row += patch) >= place.bottom;
      if (ends && (piece += parts) < task.pieces) {
        place = place_of<Layout>(task, group, piece);
        row = place.top;
        values.begin(place);
        load_g(place, row);
      } else if (!ends) {
        values.load_quad();
        load_g(place, row);
      }
      commit_copies();
      multiply(tile, first_quad);
      first_quad += ends ? 2 : 1;
      if (piece >= task.pieces) break;
    }
    wait_for_copies<0>();
    store();
  }

  const ConvTask<T>& task;
  ValueRing<Layout, T> values;
  T* all_g;
  float* all_sums;
  int group, part, lane, warp, tiles_loaded = 0;
  float sums[lane_channels][3][4] = {}, bias[lane_channels] = {};
};

template <class T>
__global__ void __launch_bounds__(Layout::threads, Layout::blocks) gather_taps_by_patches(ConvTask<T> task) {
  if (!products_built) return;
  LINNET_DYNAMIC_SHARED(memory);
  TapsBlock<T>(task, memory).run();
}

template <class T>
void gather(const DepthwiseConv& conv, const ops::ColumnView& values, const ops::ColumnView& g, View dweight,
            View dbias) {
  ConvTask<T> task = task_of_patches<Layout, T>(conv);
  task.values = source_of<T>(conv, values);
  task.g = source_of<T>(conv, g);
  const int64_t parts = parts_of_patches<Layout>(task);
  const Scratch shares(static_cast<size_t>(parts * (patch_area + 1) * conv.width) * sizeof(float));
  task.shares = shares.as<float>();
  launch(gather_taps_by_patches<T>, dim3(static_cast<unsigned>(task.groups * parts)), dim3(Layout::threads),
         Layout::bytes, task);
  add_tap_shares(conv, task.shares, static_cast<int>(parts), dweight, dbias);
}

}  // namespace

void depthwise_conv_gradients_by_patches(const DepthwiseConv& conv, const ops::ColumnView& values,
                                         const ops::ColumnView& g, View dweight, View dbias) {
  with_half(conv.dtype, [&](auto* type) { gather<Pointee<decltype(type)>>(conv, values, g, dweight, dbias); });
}

}  // namespace linnet::cuda
