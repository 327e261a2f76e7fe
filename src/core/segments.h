// Large blocks of memory, cut from segments that the system gives: best fit, and neighbours joined again when
// they are free. One big segment serves any mixture of sizes without going back to the system, whose fresh
// pages cost a fault and a clearing each; segments ask for huge pages, which makes both rarer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>

namespace linnet {

/// Where segments come from, and go back to.
struct SegmentSource {
  void* (*obtain)(size_t bytes);  ///< null when there is no more
  void (*release)(void* segment, size_t bytes);
  size_t smallest;  ///< of a segment, in bytes
  size_t page;      ///< sizes are multiples of it
};
/// The system's memory, in huge pages.
SegmentSource system_segments();

/// Not synchronised.
class Segments {
 public:
  static constexpr size_t granularity =
      64 * 1024;  ///< of large blocks: they are multiples of it, and begin on one

  explicit Segments(const SegmentSource& source = system_segments()) : source_(source) {}

  /// A block of `size` bytes; null when the source has no more.
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

  SegmentSource source_;
  std::map<Address, size_t> segments_, free_;
  std::set<std::pair<size_t, Address>> free_by_size_;
  size_t reserved_ = 0;
};

}  // namespace linnet
