#include "core/segments.h"

#include <sys/mman.h>

#include <algorithm>

#include "core/poison.h"

namespace linnet {
namespace {

constexpr size_t huge_page = size_t{2} << 20;
constexpr size_t smallest_segment = size_t{64} << 20;

void* map_segment(size_t size) {
  // Room for an aligned start; what lies beside it goes back at once.
  void* const mapped =
      mmap(nullptr, size + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const auto from = reinterpret_cast<uintptr_t>(mapped), at = (from + huge_page - 1) / huge_page * huge_page;
  if (at > from) munmap(mapped, at - from);
  if (const size_t rest = from + huge_page - at; rest > 0) munmap(reinterpret_cast<void*>(at + size), rest);
#ifdef MADV_HUGEPAGE
  madvise(reinterpret_cast<void*>(at), size, MADV_HUGEPAGE);
#endif
  return reinterpret_cast<void*>(at);
}

void unmap_segment(void* segment, size_t size) {
  unpoison(segment, size);
  munmap(segment, size);
}

}  // namespace

SegmentSource system_segments() { return {map_segment, unmap_segment, smallest_segment, huge_page}; }

void Segments::add_free(Address at, size_t size) {
  free_.emplace(at, size);
  free_by_size_.emplace(size, at);
}

void Segments::remove_free(Address at, size_t size) {
  free_.erase(at);
  free_by_size_.erase({size, at});
}

bool Segments::grow(size_t size) {
  if (size > SIZE_MAX / 2) return false;
  const size_t least = (size + source_.page - 1) / source_.page * source_.page;
  size = std::max(source_.smallest, least);
  void* segment = source_.obtain(size);
  if (segment == nullptr && size > least) segment = source_.obtain(size = least);  // the last there is
  if (segment == nullptr) return false;
  const auto at = reinterpret_cast<Address>(segment);
  segments_.emplace(at, size);
  reserved_ += size;
  add_free(at, size);
  return true;
}

void* Segments::take(size_t size) {
  auto best = free_by_size_.lower_bound({size, 0});
  if (best == free_by_size_.end()) {
    if (!grow(size)) return nullptr;
    best = free_by_size_.lower_bound({size, 0});
  }
  const auto [found, at] = *best;
  remove_free(at, found);
  if (found > size) add_free(at + size, found - size);
  return reinterpret_cast<void*>(at);
}

void Segments::give(void* block, size_t size) noexcept try {
  auto at = reinterpret_cast<Address>(block);
  const auto next = free_.lower_bound(at);
  if (next != free_.end() && next->first == at + size && !segments_.contains(next->first)) {
    const size_t joined = next->second;
    remove_free(at + size, joined);
    size += joined;
  }
  const auto after = free_.lower_bound(at);
  if (after != free_.begin() && !segments_.contains(at)) {
    const auto [before, length] = *std::prev(after);
    if (before + length == at) {
      remove_free(before, length);
      at = before;
      size += length;
    }
  }
  add_free(at, size);
} catch (...) {  // no memory for the bookkeeping: the block is lost, no more
}

void Segments::release_down_to(size_t wanted) noexcept {
  for (auto segment = segments_.begin(); segment != segments_.end() && reserved_ > wanted;) {
    const auto [at, size] = *segment;
    const auto found = free_.find(at);
    if (found == free_.end() || found->second != size) {
      ++segment;
      continue;
    }
    remove_free(at, size);
    source_.release(reinterpret_cast<void*>(at), size);
    reserved_ -= size;
    segment = segments_.erase(segment);
  }
}

}  // namespace linnet
