#include "core/memory.h"

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "core/error.h"

namespace linnet {
namespace {

constexpr size_t alignment = 64;

// Four classes to each power of two: at most a fifth of a block is wasted.
size_t size_class(size_t bytes) {
  if (bytes <= 256) return (bytes + alignment) / alignment * alignment;
  const size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

class Cache {
 public:
  void* take(size_t size) {
    const std::scoped_lock lock(mutex_);
    void* block = nullptr;
    if (auto found = free_.find(size); found != free_.end() && !found->second.empty()) {
      block = found->second.back();
      found->second.pop_back();
      stats_.cached -= size;
    } else {
      block = std::aligned_alloc(alignment, size);
      if (!block) {
        drop_all();
        block = std::aligned_alloc(alignment, size);
      }
      check(block != nullptr, "out of memory: {} more bytes wanted, {} in use", size, stats_.in_use);
    }
    stats_.in_use += size;
    stats_.peak = std::max(stats_.peak, stats_.in_use);
    return block;
  }

  void give(void* block, size_t size) noexcept {
    const std::scoped_lock lock(mutex_);
    stats_.in_use -= size;
    try {
      free_[size].push_back(block);
      stats_.cached += size;
    } catch (...) {
      std::free(block);
    }
    // What is cached never exceeds what was once needed at the same time.
    if (stats_.in_use + stats_.cached > stats_.peak) drop_larger_than_needed();
  }

  void release() {
    const std::scoped_lock lock(mutex_);
    drop_all();
  }

  MemoryStats stats() {
    const std::scoped_lock lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    const std::scoped_lock lock(mutex_);
    stats_.peak = stats_.in_use;
  }

 private:
  void drop_all() {
    for (auto& [size, blocks] : free_)
      for (void* block : blocks) std::free(block);
    free_.clear();
    stats_.cached = 0;
  }

  void drop_larger_than_needed() {
    const size_t slack = 64u << 20;
    while (stats_.in_use + stats_.cached > stats_.peak + slack && !free_.empty()) {
      auto largest = std::prev(free_.end());
      if (largest->second.empty()) {
        free_.erase(largest);
        continue;
      }
      std::free(largest->second.back());
      largest->second.pop_back();
      stats_.cached -= largest->first;
    }
  }

  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
  MemoryStats stats_;
};

// Never destroyed: tensors with static storage duration may outlive any static object.
Cache& cache() {
  static Cache* const instance = new Cache;
  return *instance;
}

}  // namespace

MemoryStats memory_stats() { return cache().stats(); }
void reset_peak_memory() { cache().reset_peak(); }
void release_cached_memory() { cache().release(); }

std::shared_ptr<void> allocate(size_t bytes) {
  check(bytes <= SIZE_MAX / 2, "out of memory: {} bytes wanted", bytes);  // rounding up must not overflow
  const size_t size = size_class(bytes);
  return {cache().take(size), [size](void* block) { cache().give(block, size); }};
}

}  // namespace linnet
