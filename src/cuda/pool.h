// Device memory, kept and handed out again: asking the driver stops everything that runs. Blocks that are given
// back may still be used by kernels put to the stream before; what takes them next comes after those. A
// recording has a pool of its own, because its kernels use their blocks again at every replay.
#pragma once

#include <cstddef>

#include "core/memory.h"

namespace linnet::cuda {

class Pool;

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

}  // namespace linnet::cuda
