#include "core/shape.h"

#include "core/error.h"

namespace linnet {

Shape::Shape(std::span<const int64_t> extents) {
  check(extents.size() <= max_rank, "a tensor has at most {} dimensions, not {}", max_rank, extents.size());
  int64_t product = 1;
  for (const int64_t extent : extents) {
    check(extent >= 0, "a tensor's dimension cannot be negative ({})", extent);
    check(extent == 0 || product <= (int64_t{1} << 60) / extent, "a tensor's dimensions multiply beyond 2^60");
    product *= std::max<int64_t>(extent, 1);
    extents_[rank_++] = extent;
  }
}

int64_t Shape::numel() const {
  int64_t product = 1;
  for (const int64_t extent : *this) product *= extent;
  return product;
}

Shape Shape::with_last(int64_t extent) const {
  check(rank_ > 0, "a scalar has no last dimension");
  Shape result = *this;
  result.extents_[rank_ - 1u] = extent;
  return result;
}

std::string to_string(const Shape& shape) { return fmt::format("({})", fmt::join(shape, ", ")); }

}  // namespace linnet
