// The depth-wise convolution of 5×5 by tensor cores. A patch, 4×2 neighbouring results of a channel, needs 8×6
// values, of which each takes 25: their sums are a product of the 48 values as a row with a 48×8 matrix, in
// which the taps lie along diagonals. Rows of a product are 16 patches, so 3 instructions give 128 results of a
// channel where multiply-adds would be 100 of a warp: what is spent on zeros costs less than that.
//
// Values are read from shared memory as 8 channels of two neighbouring columns, and turned in registers into
// the columns' pair of each channel.
#pragma once

#include "ops/depthwise_conv_tiles_cuda.cuh"

namespace linnet::cuda::depthwise {

constexpr int patch_kernel = 5, patch_area = patch_kernel * patch_kernel;
constexpr int patch = 4;  // columns and rows of two patches, one below the other
constexpr int lane_channels = 8;

// A tile of 8 pairs of patches beside each other over 32 channels, and how values lie in shared memory: two
// neighbouring columns in 128 bytes, whose packs of 8 channels are swizzled so that lanes beside each other
// meet no bank twice. (With gaps instead, copies would not fill whole rows of banks, which is slow.)
struct PatchTile {
  static constexpr int across = 8, columns = patch * across, tokens = patch * columns;
  static constexpr int channels = 32, packs = channels / lane_channels;
  static constexpr int pairs = (columns + patch_kernel - 1) / 2, pair_size = 2 * channels;  // in elements
  static constexpr int row_size = pairs * pair_size, quad = patch * row_size;

  __device__ static int place_in_row(int column, int pack) {
    const int pair = column / 2;
    return pair * pair_size + ((column % 2 * packs + pack) ^ pair % 8) * lane_channels;
  }
};

// The 48×8 matrix of each of 8 channels as a product's right fragments, for all lanes. They wait in shared
// memory: with them in registers there were too few for the rest.
struct TapFragments {
  uint2 at[lane_channels][3][warp_size];
};

// taps(channel, tap), of 8 channels; tap counts rows before columns.
template <class T, class Taps>
__device__ __forceinline__ void store_tap_fragments(TapFragments& to, Taps taps) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, group = lane / 4;
  const int column = 2 * (lane % 4) - group % 4;  // of the first of two neighbours in the filter
  for (int c = 0; c < lane_channels; ++c) {
    const auto tap = [&](int ky, int kx) {
      const bool inside = static_cast<unsigned>(ky) < patch_kernel && static_cast<unsigned>(kx) < patch_kernel;
      return inside ? taps(c, ky * patch_kernel + kx) : 0.0f;
    };
    for (int i = 0; i < 3; ++i) {
      const int row = 2 * i - group / 4;
      to.at[c][i][lane] = {pack<T>(tap(row, column), tap(row, column + 1)),
                           pack<T>(tap(row + 1, column), tap(row + 1, column + 1))};
    }
  }
}

__device__ __forceinline__ unsigned pair_of(unsigned left, unsigned right, bool upper) {
#ifdef LINNET_CUDA_EMULATED
  return upper ? (left >> 16) | (right & 0xffff0000u) : (left & 0xffffu) | right << 16;
#else
  return __byte_perm(left, right, upper ? 0x7632 : 0x5410);
#endif
}

// sums += results of a tile for a warp's 8 channels. `upper` and `lower` are the first and the fifth row of
// values that this lane's pair of patches needs, `left` and `right` where in a row its two columns stand.
// sums[c]: columns 2·(lane%2) and the next of patches number lane/4, row lane%4/2, and of those below, as a
// product's results lie.
template <class T>
__device__ __forceinline__ void convolve_patches(const T* upper, const T* lower, int left, int right,
                                                 const TapFragments& taps, float (&sums)[lane_channels][4]) {
  const auto words = [](const T* at) { return *static_cast<const uint4*>(static_cast<const void*>(at)); };
  unsigned former[lane_channels][2];  // values of two rows
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const T* const row = (j < 2 ? upper : lower) + j % 2 * 2 * PatchTile::row_size;
    const uint4 lefts[2] = {words(row + left), words(row + PatchTile::row_size + left)};
    const uint4 rights[2] = {words(row + right), words(row + PatchTile::row_size + right)};
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      const auto word = [c](const uint4& x) { return c < 2 ? x.x : c < 4 ? x.y : c < 6 ? x.z : x.w; };
      unsigned values[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) values[i] = pair_of(word(lefts[i]), word(rights[i]), c % 2);
      if (j > 0) {
        const unsigned rows[4] = {former[c][0], values[0], former[c][1], values[1]};
        const uint2 both = taps.at[c][j > 0 ? j - 1 : 0][static_cast<int>(threadIdx.x) % warp_size];
        const unsigned matrix[2] = {both.x, both.y};
        mma<T>(sums[c], rows, matrix);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) former[c][i] = values[i];
    }
  }
}

// A block's tile, and the rows of values for it and for the next one, as each thread of the block copies them.
// A warp takes 8 channels.
struct RingTile : PatchTile {
  static constexpr int warps = packs, threads = warps * warp_size;
  static constexpr int quads = 4;  // two for this tile, and two for the next, if it begins anew elsewhere
  static constexpr int ring = quads * quad;
};

template <class L, class T>
struct ValueRing {
  static_assert(L::columns == L::threads / L::packs, "each thread copies packs of one column, few one more");

  __device__ ValueRing(const ConvTask<T>& task_, void* memory)
      : task(task_), first(static_cast<T*>(memory)), own_pack(static_cast<int>(threadIdx.x) % L::packs),
        own_column(static_cast<int>(threadIdx.x) / L::packs) {}

  __device__ const T* quad(int number) const { return first + number % L::quads * L::quad; }

  // Begins to copy what the first tile of a piece needs.
  __device__ void begin(const Place& place) {
    const int column = place.column - patch_kernel / 2 + own_column;
    const bool in_width = place.channel + own_pack * 8 < task.width;
    const auto is_inside = [&](int x) {
      return in_width && static_cast<unsigned>(x) < static_cast<unsigned>(task.columns);
    };
    row = place.top - patch_kernel / 2;
    from = task.values.first + (place.token + column) * task.values.stride + row * task.values.row_stride +
           place.channel + own_pack * 8;
    inside = is_inside(column);
    beyond_inside = is_inside(column + L::columns);
    load_quad();
    load_quad();
  }
  // And what the next one needs and that before it has not.
  __device__ void load_quad() {
    const int beyond = L::columns * task.values.stride;
    T* const to = first + loaded * L::quad + L::place_in_row(own_column, own_pack);
    loaded = (loaded + 1) % L::quads;
#pragma unroll
    for (int y = 0; y < patch; ++y) {
      const bool there = static_cast<unsigned>(row + y) < static_cast<unsigned>(task.rows);
      copy_16(to + y * L::row_size, from, there && inside);
      if (own_column < patch_kernel - 1)
        copy_16(to + y * L::row_size + L::columns / 2 * L::pair_size, from + beyond, there && beyond_inside);
      from += task.values.row_stride;
    }
    row += patch;
  }

  const ConvTask<T>& task;
  T* first;
  int own_pack, own_column;  // which channels and columns this thread copies
  int loaded = 0;            // the quad that comes next

 private:
  const T* from;  // of the next row
  int row;
  bool inside, beyond_inside;  // its column, and the one that is a tile further
};

// Cuts columns of tiles so that the fullest multiprocessor has least to do; a piece's first rows cost half
// a tile.
template <class L, class T>
ConvTask<T> task_of_patches(const DepthwiseConv& conv) {
  ConvTask<T> task = uncut_task<L, T>(conv);
  const int64_t tiles = divide_up(task.rows, patch), room = int64_t{L::blocks} * multiprocessors();
  int64_t least = INT64_MAX;
  for (int64_t cuts = 1; cuts <= tiles; ++cuts) {
    const int64_t height = divide_up(tiles, cuts), down = divide_up(tiles, height);
    const int64_t walked = divide_up(conv.batch * task.across * down * task.groups, room) * (2 * height + 1);
    if (walked >= least) continue;
    least = walked;
    task.height = static_cast<int>(height) * patch;
    task.down = static_cast<int>(down);
  }
  task.pieces = static_cast<int>(conv.batch) * task.down * task.across;
  return task;
}

// How many blocks share the pieces of a group of channels.
template <class L, class T>
int64_t parts_of_patches(const ConvTask<T>& task) {
  const int64_t each = divide_up(int64_t{task.pieces} * task.groups, int64_t{L::blocks} * multiprocessors());
  return divide_up(task.pieces, each);
}

// body(row and column in the tile, index into sums[c]) for the results that a lane has of each channel.
template <class Body>
__device__ __forceinline__ void for_patch_results(Body body) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int i = 0; i < 4; ++i) body(i / 2 * 2 + lane % 4 / 2, lane / 4 * patch + lane % 2 * 2 + i % 2, i);
}

}  // namespace linnet::cuda::depthwise
