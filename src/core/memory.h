// Memory that tensors live in: a caching allocator that knows its peak. Freed blocks are kept and handed out
// again, because fresh pages from the system cost a page fault each (several GB/s at best), which a
// transformer's large, short-lived activations would pay at every operation.
#pragma once

#include <cstddef>
#include <memory>

namespace linnet {

struct MemoryStats {
  size_t in_use = 0;  ///< bytes held by live tensors
  size_t peak = 0;    ///< the most that in_use has been since the last reset_peak()
  size_t cached = 0;  ///< bytes free but kept for reuse
};

MemoryStats memory_stats();
void reset_peak_memory();
/// Gives all cached blocks back to the system, and the GPU's to it if one is in use.
void release_cached_memory();

/// A block of host memory, 64-byte aligned; contents undefined. Throws OutOfMemory when there is none left.
std::shared_ptr<void> allocate(size_t bytes);

}  // namespace linnet
