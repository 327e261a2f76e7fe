// How much text a PNG may hold, to be read and to be written.
#pragma once

#include <string>

#include "core/error.h"

namespace linnet {

/// Counts texts and their bytes, keywords included. Throws Error, one sentence beginning with name, when there
/// are too many.
class PngTextLimit {
 public:
  static constexpr size_t most_bytes = size_t{16} << 20, most_texts = 100'000;

  explicit PngTextLimit(const std::string& name) : name_(name) {}
  void count(size_t bytes) {
    check(bytes <= bytes_left_, "{}: its texts have more than {} bytes", name_, most_bytes);
    check(texts_left_ > 0, "{}: it has more than {} texts", name_, most_texts);
    bytes_left_ -= bytes;
    --texts_left_;
  }
  size_t bytes_left() const { return bytes_left_; }

 private:
  const std::string& name_;
  size_t bytes_left_ = most_bytes, texts_left_ = most_texts;
};

}  // namespace linnet
