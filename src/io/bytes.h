// Little-endian numbers read from bytes that may end too soon.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "core/error.h"

namespace linnet {

/// Walks over bytes; throws Error("{source}: …") instead of reading beyond their end.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string_view source) : bytes_(bytes), source_(source) {}

  size_t position() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  void seek(uint64_t position) {
    check(position <= bytes_.size(), "{}: it ends before byte {}", source_, position);
    at_ = static_cast<size_t>(position);
  }
  std::span<const std::byte> take(uint64_t count) {
    check(count <= left(), "{}: it ends {} bytes too soon, at byte {}", source_, count - left(), bytes_.size());
    const auto result = bytes_.subspan(at_, static_cast<size_t>(count));
    at_ += static_cast<size_t>(count);
    return result;
  }
  std::string_view text(uint64_t count) {
    const auto part = take(count);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  /// Up to and without a line feed, which is skipped.
  std::string_view line() {
    const auto rest = bytes_.subspan(at_);
    const void* const end = rest.empty() ? nullptr : std::memchr(rest.data(), '\n', rest.size());
    check(end != nullptr, "{}: a line has no end", source_);
    const auto length = static_cast<size_t>(static_cast<const std::byte*>(end) - rest.data());
    const std::string_view result = text(length);
    ++at_;
    return result;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(),
                sizeof(T));  // little-endian, as every machine that Linnet runs on
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view source_;
  size_t at_ = 0;
};

}  // namespace linnet
