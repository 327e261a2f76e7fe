#include "cuda/pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include <linnet/error.h>

#include "core/poison.h"
#include "core/segments.h"
#include "cuda/device.h"

namespace linnet::cuda {

namespace {

constexpr size_t mib = size_t{1} << 20;
constexpr size_t large = mib;       // from here on a block comes from large segments
constexpr size_t small_step = 512;  // what small blocks are multiples of
constexpr size_t page = 2 * mib;

size_t reserved = 0, most_reserved = 0;  // of all segments, and how much they may be (0: all that there is)

// The last segment that was asked for, and whether the limit, not the card, has no room for it.
struct Asked {
  size_t bytes = 0;
  bool beyond_limit = false;
} asked;

void* obtain(size_t bytes) {
  asked = {bytes, most_reserved > 0 && reserved + bytes > most_reserved};
  if (asked.beyond_limit) return nullptr;
  void* const segment = obtain_segment(bytes);
  if (segment != nullptr) reserved += bytes;
  return segment;
}

void release(void* segment, size_t bytes) {
  release_segment(segment, bytes);
  reserved -= bytes;
}

#ifdef LINNET_ADDRESS_SANITIZER
constexpr size_t gap = 1;  // behind each block, on the emulated card: what the sanitizer watches
#else
constexpr size_t gap = 0;
#endif

size_t rounded(size_t bytes) {
  bytes += gap;
  const size_t step = bytes < large ? small_step : Segments::granularity;
  return std::max(small_step, (bytes + step - 1) / step * step);
}

}  // namespace

class Pool {
 public:
  void* take(size_t size) {
    Segments& from = size < large ? small_ : large_;
    void* const block = from.take(size);
    if (block != nullptr) in_use_ += size;
    return block;
  }
  void give(void* block, size_t size) {
    (size < large ? small_ : large_).give(block, size);
    in_use_ -= size;
  }
  void release_cached() {
    small_.release_down_to(0);
    large_.release_down_to(0);
  }
  size_t in_use() const { return in_use_; }

  bool dropped = false;

 private:
  Segments small_{{obtain, release, 8 * mib, page}}, large_{{obtain, release, 64 * mib, page}};
  size_t in_use_ = 0;
};

namespace {

struct Pools {
  std::mutex mutex;
  Pool shared;
  Pool* active = nullptr;                    // a recording's, while one is made
  std::unordered_map<void*, Pool*> special;  // blocks of recordings' pools
  size_t in_use = 0, peak = 0;
};

// Never destroyed: tensors with static storage duration may outlive any static object.
Pools& pools() {
  static Pools* const instance = new Pools;
  return *instance;
}

std::string in_units(size_t bytes) {
  constexpr size_t kib = 1024;
  if (bytes < kib) return fmt::format("{} bytes", bytes);
  if (bytes < mib) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / kib);
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / mib);
}

// Of a limit, which only painting has, memory that is cached counts as taken: it is, in pieces too small.
[[noreturn]] void out_of_memory(size_t in_use) {
  if (asked.beyond_limit)
    throw OutOfMemory(fmt::format(
        "the GPU is out of memory: {} more wanted, {} in use and {} free of the {} that --memory allows; more "
        "of it helps, and fewer pictures at once take less",
        in_units(asked.bytes), in_units(reserved), in_units(most_reserved - std::min(most_reserved, reserved)),
        in_units(most_reserved)));
  const auto [free, total] = room();
  throw OutOfMemory(fmt::format(
      "the GPU is out of memory: {} more wanted, {} in use and {} free of {}; fewer pictures at once take "
      "less, and so does train.checkpointing in training",
      in_units(asked.bytes), in_units(in_use), in_units(free), in_units(total)));
}

void delete_if_empty(Pool* pool) {
  if (!pool->dropped || pool->in_use() > 0) return;
  pool->release_cached();
  delete pool;
}

}  // namespace

void* take_block(size_t bytes) {
  Pools& all = pools();
  const std::scoped_lock lock(all.mutex);
  const size_t size = rounded(bytes);
  Pool& pool = all.active != nullptr ? *all.active : all.shared;
  void* block = pool.take(size);
  if (block == nullptr && all.active == nullptr) {
    wait_for_stream();
    all.shared.release_cached();
    block = pool.take(size);
  }
  if (block == nullptr) out_of_memory(all.in_use);
  if (all.active != nullptr) all.special.emplace(block, all.active);
  all.in_use += size;
  all.peak = std::max(all.peak, all.in_use);
  return block;
}

void give_block(void* block, size_t bytes) {
  Pools& all = pools();
  const std::scoped_lock lock(all.mutex);
  const size_t size = rounded(bytes);
  all.in_use -= size;
  const auto found = all.special.find(block);
  if (found == all.special.end()) return all.shared.give(block, size);
  Pool* const pool = found->second;
  all.special.erase(found);
  pool->give(block, size);
  delete_if_empty(pool);
}

Pool* begin_pool() {
  Pools& all = pools();
  const std::scoped_lock lock(all.mutex);
  all.active = new Pool;
  return all.active;
}

void end_pool() {
  const std::scoped_lock lock(pools().mutex);
  pools().active = nullptr;
}

void drop_pool(Pool* pool) {
  const std::scoped_lock lock(pools().mutex);
  pool->dropped = true;
  delete_if_empty(pool);
}

MemoryStats pool_stats() {
  const std::scoped_lock lock(pools().mutex);
  return {pools().in_use, pools().peak, reserved - std::min(reserved, pools().in_use)};
}

size_t pool_available() {
  const std::scoped_lock lock(pools().mutex);
  size_t free = room().free;
  if (most_reserved > 0) free = std::min(free, most_reserved - std::min(most_reserved, reserved));
  return free + reserved - std::min(reserved, pools().in_use);
}

void reset_pool_peak() {
  const std::scoped_lock lock(pools().mutex);
  pools().peak = pools().in_use;
}

void release_cached_blocks() {
  const std::scoped_lock lock(pools().mutex);
  wait_for_stream();
  pools().shared.release_cached();
}

void limit_pools(size_t bytes) {
  const std::scoped_lock lock(pools().mutex);
  most_reserved = bytes;
}

}  // namespace linnet::cuda
