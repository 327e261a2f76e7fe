// Large blocks of memory, cut from segments that the system gives: best fit, and neighbours joined again when
// they are free. One big segment serves any mixture of sizes without going back to the system, whose fresh
// pages cost a fault and a clearing each; segments ask for huge pages, which makes both rarer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>

namespace linnet {

/// Not synchronised.
class Segments {
 public:
  static constexpr size_t granularity = 64 * 1024;  ///< blocks are multiples of it, and begin on one

  /// A block of `size` bytes, a multiple of granularity; null when the system has no more.
  void* take(size_t size);
  void give(void* block, size_t size) noexcept;

  /// Bytes of all segments, used and free.
  size_t reserved() const { return reserved_; }
  /// Gives segments that are free as a whole back until `wanted` bytes are reserved, or there is none.
  void release_down_to(size_t wanted) noexcept;

 private:
  using Address = uintptr_t;

  bool grow(size_t size);
  void add_free(Address at, size_t size);
  void remove_free(Address at, size_t size);

  std::map<Address, size_t> segments_, free_;
  std::set<std::pair<size_t, Address>> free_by_size_;
  size_t reserved_ = 0;
};

}  // namespace linnet
