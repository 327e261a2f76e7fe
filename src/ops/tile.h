// Sizes of the scratch tiles that the attention kernels work on.
#pragma once

#include <cstdint>

namespace linnet::ops {

/// Scratch rows are padded to this many f32s: one cache line, a whole vector of every instruction set used.
constexpr int64_t tile_padding = 16;

/// True if the CPU multiplies pairs of bf16 with f32 sums (AVX-512 BF16).
bool have_pair_dot();

constexpr int64_t pad_tile(int64_t n) { return (n + tile_padding - 1) / tile_padding * tile_padding; }

}  // namespace linnet::ops
