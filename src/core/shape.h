// A tensor's extents: up to six, held inline so that making one costs no allocation.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace linnet {

class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  /// Throws Error on more than six extents, a negative one, or a product beyond 2^60 (so that
  /// bytes, too, can be counted in 64 bits).
  explicit Shape(std::span<const int64_t> extents);

  int rank() const { return rank_; }
  /// Negative indices count from the end.
  int64_t operator[](int i) const { return extents_[static_cast<size_t>(i < 0 ? rank_ + i : i)]; }
  int64_t numel() const;
  /// All but the last extent multiplied: the rows of the tensor seen as a matrix.
  int64_t rows() const { return rank_ == 0 || extents_[rank_ - 1u] == 0 ? 1 : numel() / (*this)[-1]; }
  /// The same shape with another last extent.
  Shape with_last(int64_t extent) const;

  const int64_t* begin() const { return extents_.data(); }
  const int64_t* end() const { return extents_.data() + rank_; }
  bool operator==(const Shape& other) const { return std::ranges::equal(*this, other); }

 private:
  std::array<int64_t, max_rank> extents_{};
  uint8_t rank_ = 0;
};

/// "(2, 3, 4)"
std::string to_string(const Shape& shape);

}  // namespace linnet
