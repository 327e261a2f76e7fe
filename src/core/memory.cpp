#include "core/memory.h"

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "core/gpu.h"
#include "core/poison.h"
#include "core/segments.h"

namespace linnet {
namespace {

constexpr size_t alignment = 64;
constexpr size_t slack = size_t{64} << 20;
constexpr size_t large = size_t{1} << 20;  // from here on blocks come from segments

// Small: four classes to each power of two, so that at most a fifth of a block is wasted.
size_t rounded(size_t bytes) {
  if (bytes <= 256) return (bytes + alignment) / alignment * alignment;
  const size_t step = bytes < large ? std::bit_floor(bytes - 1) / 4 : Segments::granularity;
  return (bytes + step - 1) / step * step;
}

class Cache {
 public:
  void* take(size_t size) {
    const std::scoped_lock lock(mutex_);
    void* const block = size < large ? take_small(size) : take_large(size);
    if (block == nullptr)
      throw OutOfMemory(fmt::format("out of memory: {} more bytes wanted, {} in use", size, in_use_));
    in_use_ += size;
    peak_ = std::max(peak_, in_use_);
    most_ = std::max(most_, in_use_);
    return block;
  }

  void give(void* block, size_t size) noexcept {
    const std::scoped_lock lock(mutex_);
    in_use_ -= size;
    if (size < large) {
      give_small(block, size);
    } else {
      segments_.give(block, size);
      large_in_use_ -= size;
      // More than was ever needed at once, and a quarter for gaps between blocks, is not worth keeping.
      segments_.release_down_to(most_ + most_ / 4 + slack);
    }
  }

  void release() {
    const std::scoped_lock lock(mutex_);
    drop_small(0);
    segments_.release_down_to(0);
    most_ = in_use_;
  }

  MemoryStats stats() {
    const std::scoped_lock lock(mutex_);
    return {in_use_, peak_, small_cached_ + segments_.reserved() - large_in_use_};
  }

  void reset_peak() {
    const std::scoped_lock lock(mutex_);
    peak_ = in_use_;
  }

 private:
  void* take_large(size_t size) {
    void* block = segments_.take(size);
    if (!block) {
      drop_small(0);
      segments_.release_down_to(0);
      block = segments_.take(size);
    }
    if (block) large_in_use_ += size;
    return block;
  }

  void* take_small(size_t size) {
    if (auto found = free_.find(size); found != free_.end() && !found->second.empty()) {
      void* const block = found->second.back();
      found->second.pop_back();
      small_cached_ -= size;
      return block;
    }
    return std::aligned_alloc(alignment, size);
  }

  void give_small(void* block, size_t size) noexcept {
    try {
      free_[size].push_back(block);
      small_cached_ += size;
    } catch (...) {
      free_small(block, size);
    }
    if (small_cached_ > most_ + slack) drop_small(most_ + slack);
  }

  // Largest first, until no more than `wanted` bytes are cached.
  void drop_small(size_t wanted) noexcept {
    for (auto sizes = free_.rbegin(); sizes != free_.rend() && small_cached_ > wanted; ++sizes)
      for (; !sizes->second.empty() && small_cached_ > wanted; sizes->second.pop_back()) {
        free_small(sizes->second.back(), sizes->first);
        small_cached_ -= sizes->first;
      }
  }

  static void free_small(void* block, size_t size) noexcept {
    unpoison(block, size);
    std::free(block);
  }

  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
  Segments segments_;
  size_t in_use_ = 0, small_cached_ = 0, large_in_use_ = 0;
  size_t peak_ = 0;  // the most in use since the user asked to count anew
  size_t most_ = 0;  // and since all was given back
};

// Never destroyed: tensors with static storage duration may outlive any static object.
Cache& cache() {
  static Cache* const instance = new Cache;
  return *instance;
}

}  // namespace

MemoryStats memory_stats() { return cache().stats(); }
void reset_peak_memory() { cache().reset_peak(); }
void release_cached_memory() {
  cache().release();
  if (gpu_is_open()) gpu().release_cached();
}

std::shared_ptr<void> allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 2)  // rounding up must not overflow
    throw OutOfMemory(fmt::format("out of memory: {} bytes wanted", bytes));
  const size_t size = rounded(bytes);
  void* const taken = cache().take(size);
  unpoison(taken, bytes);  // what is cached, or beyond what was asked for, the address sanitizer watches
  poison(static_cast<char*>(taken) + bytes, size - bytes);
  return {taken, [size](void* block) {
            poison(block, size);
            cache().give(block, size);
          }};
}

}  // namespace linnet
