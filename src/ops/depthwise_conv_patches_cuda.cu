// The convolution of 5×5 of 16-bit types: a block takes 32 channels, 8 a warp, and walks down columns of tiles,
// copies of the next tile's rows running beside the products. It moves two values an element, one of which
// comes up to a quarter more often, as tiles overlap.
#include "ops/depthwise_conv_cuda.h"
#include "ops/depthwise_conv_patches_cuda.cuh"

namespace linnet::cuda {
namespace {

using namespace depthwise;

// Of a block: warps, and where things lie in shared memory, in elements.
struct Layout : RingTile {
  static constexpr int blocks = 3;
  static constexpr int results = ring, fragments = results + tokens * channels;
  static constexpr int fragments_size = warps * static_cast<int>(sizeof(TapFragments)) / 2;
  static constexpr int biases = fragments + fragments_size;
  static constexpr size_t bytes = biases * 2 + channels * sizeof(float);
};

template <class T>
struct PatchesBlock {
  __device__ PatchesBlock(const ConvTask<T>& task_, char* memory)
      : task(task_), values(task_, memory), results(values.first + Layout::results),
        fragments(static_cast<TapFragments*>(static_cast<void*>(values.first + Layout::fragments))),
        biases(static_cast<float*>(static_cast<void*>(values.first + Layout::biases))),
        group(static_cast<int>(blockIdx.x) % task.groups), lane(static_cast<int>(threadIdx.x) % warp_size),
        warp(static_cast<int>(threadIdx.x) / warp_size) {
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
    convolve_patches<T>(values.quad(first_quad), values.quad(first_quad + 1),
                        Layout::place_in_row(column, warp), Layout::place_in_row(column + 1, warp),
                        fragments[warp], sums);
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
    const int column = place.column + values.own_column, channel = place.channel + values.own_pack * 8;
    const bool inside = channel < task.width && column < task.columns;
    return {task.out +
                (place.token + static_cast<int64_t>(place.top) * task.columns + column) * task.out_stride +
                channel,
            inside ? place.bottom - place.top : 0};
  }
  __device__ void store(Target& target) const {
#pragma unroll
    for (int y = 0; y < patch; ++y) {
      if (y < target.rows)
        store_pack(target.to, load_pack<8>(result_at(y, values.own_column, values.own_pack)));
      target.to += task.out_row_stride;
    }
    target.rows -= patch;
  }

  __device__ void run() {
    const int parts = static_cast<int>(gridDim.x) / task.groups;
    int piece = static_cast<int>(blockIdx.x) / task.groups, first_quad = 0;
    Place place = place_of<Layout>(task, group, piece);
    values.begin(place);
    commit_copies();
    while (true) {
      Target target = target_of(place);
      for (int left = (place.bottom - place.top + patch - 1) / patch; left > 0; --left) {
        wait_for_copies<0>();
        __syncthreads();  // all have this tile, and have stored the results of the one before
        if (left > 1) {
          values.load_quad();
        } else if ((piece += parts) < task.pieces) {
          place = place_of<Layout>(task, group, piece);
          values.begin(place);
        }
        commit_copies();
        multiply(first_quad);
        __syncthreads();
        store(target);
        first_quad += left > 1 ? 1 : 2;
      }
      if (piece >= task.pieces) return;
    }
  }

  const ConvTask<T>& task;
  ValueRing<Layout, T> values;
  T* results;
  TapFragments* fragments;
  float* biases;
  int group, lane, warp;
};

template <class T>
__global__ void __launch_bounds__(Layout::threads, Layout::blocks) convolve_by_patches(ConvTask<T> task) {
  if (!products_built) return;
  LINNET_DYNAMIC_SHARED(memory);
  PatchesBlock<T> block(task, memory);
  block.run();
}

template <class T>
void convolve(const DepthwiseConv& conv, const ops::ColumnView& in, View weight, View bias, bool flipped,
              const ops::ColumnView& out) {
  ConvTask<T> task = task_of_patches<Layout, T>(conv);
  task.values = source_of<T>(conv, in);
  task.out = out.view.as<T>() + out.first;
  task.out_stride = static_cast<unsigned>(out.stride);
  task.out_row_stride = conv.columns * out.stride;
  task.weight = weight.as<float>();
  task.bias = bias.as<float>();
  task.flipped = flipped;
  launch(convolve_by_patches<T>, dim3(static_cast<unsigned>(task.groups * parts_of_patches<Layout>(task))),
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
