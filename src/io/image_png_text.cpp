// The texts of a PNG, and whether it is whole. Not by libpng, which keeps, decompressed, all that come, or
// leaves out what is beyond its limits and does not say so. Format: https://www.w3.org/TR/png-3 (5.3
// chunks, 11.3.3 texts).
#include "io/image_png_text.h"

#include <zlib.h>

#include <algorithm>

#include "io/image_codecs.h"
#include "io/text.h"

namespace linnet {
namespace {

uint32_t big_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

std::string latin1_to_utf8(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      result += c;
    } else {
      result += static_cast<char>(0xc0 | (byte >> 6));
      result += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return result;
}

// What a zlib stream holds, of which no more is made than one byte beyond the most that there may be; nothing
// if it is damaged.
std::optional<std::string> inflated(std::string_view stream, size_t most) {
  z_stream state{};
  check(inflateInit(&state) == Z_OK, "zlib is out of memory");
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(stream.data()));
  state.avail_in = static_cast<uInt>(stream.size());
  std::string result;
  char block[1 << 14];
  int status = Z_OK;
  while (status == Z_OK && result.size() <= most) {
    state.next_out = reinterpret_cast<Bytef*>(block);
    state.avail_out = sizeof block;
    status = inflate(&state, Z_NO_FLUSH);
    result.append(block, sizeof block - state.avail_out);
  }
  inflateEnd(&state);
  if (status == Z_OK || status == Z_STREAM_END) return result;
  return std::nullopt;
}

// Of a chunk, whose length and sum stand around what is summed.
bool has_its_sum(std::string_view chunk) {
  const std::string_view summed = chunk.substr(4, chunk.size() - 8);
  return crc32(0, reinterpret_cast<const Bytef*>(summed.data()), static_cast<uInt>(summed.size())) ==
         big_endian(chunk.substr(chunk.size() - 4));
}

class TextReader {
 public:
  TextReader(std::span<const std::byte> bytes, const std::string& name)
      : left_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), name_(name), limit_(name) {}

  ImageText read() {
    take(8);  // the signature
    for (;;) {
      check(left_.size() >= 4, "{}: damaged PNG: it is cut short", name_);
      const std::string_view chunk = take(size_t{12} + big_endian(left_));
      const std::string_view type = chunk.substr(4, 4), data = chunk.substr(8, chunk.size() - 12);
      if (type == "IDAT" || type == "IEND") return std::move(texts_);
      if (type != "tEXt" && type != "zTXt" && type != "iTXt") continue;
      require(has_its_sum(chunk));
      add(type, data);
    }
  }

 private:
  std::string_view take(size_t count) {
    check(count <= left_.size(), "{}: damaged PNG: it is cut short", name_);
    const std::string_view taken = left_.substr(0, count);
    left_.remove_prefix(count);
    return taken;
  }
  void require(bool whole) const { check(whole, "{}: one of its texts is damaged", name_); }
  // What stands before the next zero byte, which data then begins behind.
  std::string_view take_string(std::string_view& data) const {
    const size_t end = data.find('\0');
    require(end != std::string_view::npos);
    const std::string_view string = data.substr(0, end);
    data.remove_prefix(end + 1);
    return string;
  }
  bool take_flag(std::string_view& data) const {
    require(!data.empty());
    const bool flag = data[0] != 0;
    data.remove_prefix(1);
    return flag;
  }

  void add(std::string_view type, std::string_view data) {
    const bool utf8 = type == "iTXt";
    const std::string_view keyword = take_string(data);
    const bool compressed = utf8 ? take_flag(data) : type == "zTXt";
    if (utf8 || compressed) require(!take_flag(data) || !compressed);  // zlib's is the only method
    if (utf8) {
      take_string(data);  // the language
      take_string(data);  // the keyword in it
    }
    const auto value = compressed ? inflated(data, limit_.bytes_left()) : std::string(data);
    require(value.has_value());
    limit_.count(keyword.size() + value->size());
    texts_[latin1_to_utf8(keyword)] = utf8 ? valid_utf8(*value) : latin1_to_utf8(*value);
  }

  std::string_view left_;
  const std::string& name_;
  PngTextLimit limit_;
  ImageText texts_;
};

}  // namespace

ImageText read_png_text(std::span<const std::byte> bytes, const std::string& name) {
  return TextReader(bytes, name).read();
}

bool is_whole_png(std::span<const std::byte> bytes) {
  std::string_view left(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  left.remove_prefix(std::min<size_t>(8, left.size()));  // the signature
  while (left.size() >= 12) {
    const size_t size = size_t{12} + big_endian(left);
    if (size > left.size() || !has_its_sum(left.substr(0, size))) return false;
    if (left.substr(4).starts_with("IEND")) return true;
    left.remove_prefix(size);
  }
  return false;
}

}  // namespace linnet
