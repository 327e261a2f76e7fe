// Device memory, kept and handed out again: asking the driver stops everything that runs. Blocks that are given
// back may still be used by kernels put to the stream before; what takes them next comes after those. A
// recording has a pool of its own, because its kernels use their blocks again at every replay.
//
// The pool knows no CUDA: what it stands on is at the end, and has one implementation for the card and one for
// the emulation, which so hands out blocks as the card does.
#pragma once

#include <cstddef>

#include "core/memory.h"

namespace linnet::cuda {

class Pool;

/// Contents undefined. Throws OutOfMemory with the numbers.
void* take_block(size_t bytes);
void give_block(void* block, size_t bytes);

/// From here to end_pool() blocks come from a pool of their own.
Pool* begin_pool();
void end_pool();
/// Its memory goes back once all of its blocks have been given back.
void drop_pool(Pool* pool);

MemoryStats pool_stats();
size_t pool_available();
void reset_pool_peak();
void release_cached_blocks();
void limit_pools(size_t bytes);

struct Room {
  size_t free, total;  ///< bytes of the card
};
Room room();
/// Null when there is no more.
void* obtain_segment(size_t bytes);
void release_segment(void* segment, size_t bytes);
/// Until all that was put to the stream is done.
void wait_for_stream();

}  // namespace linnet::cuda
