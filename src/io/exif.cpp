#include "io/exif.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"

namespace linnet {
namespace {

constexpr unsigned orientation_tag = 0x0112, exif_folder_tag = 0x8769, comment_tag = 0x9286;
constexpr std::string_view ascii_comment("ASCII\0\0\0", 8);

// TIFF's folders of entries: a tag, a type, a count, and the value or where it lies.
class Tiff {
 public:
  explicit Tiff(std::span<const std::byte> bytes) : bytes_(bytes) {
    const std::string_view order = text(0, 2);
    big_endian_ = order == "MM";
    check((big_endian_ || order == "II") && number(2, 2) == 42, "no TIFF");
  }
  uint32_t first_folder() const { return number(4, 4); }

  // Where the entry of this tag lies.
  std::optional<size_t> find(size_t folder, unsigned tag) const {
    const uint32_t count = number(folder, 2);
    for (uint32_t i = 0; i < count; ++i)
      if (const size_t entry = folder + 2 + size_t{i} * 12; number(entry, 2) == tag) return entry;
    return std::nullopt;
  }
  uint32_t number(size_t at, int length) const {
    const std::string_view digits = text(at, static_cast<size_t>(length));
    uint32_t value = 0;
    for (int i = 0; i < length; ++i)
      value = value << 8 | static_cast<uint8_t>(digits[static_cast<size_t>(big_endian_ ? i : length - 1 - i)]);
    return value;
  }
  std::string_view text(size_t at, size_t length) const {
    check(at <= bytes_.size() && length <= bytes_.size() - at, "Exif data are cut short");
    return {reinterpret_cast<const char*>(bytes_.data()) + at, length};
  }

 private:
  std::span<const std::byte> bytes_;
  bool big_endian_ = false;
};

void put(std::string& out, uint32_t value, int length) {
  for (int i = 0; i < length; ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
}

// A folder with one entry: its count of entries, the entry, and that no other folder follows.
void put_folder(std::string& out, unsigned tag, unsigned type, size_t count, uint32_t value) {
  put(out, 1, 2);
  put(out, tag, 2);
  put(out, type, 2);
  put(out, static_cast<uint32_t>(count), 4);
  put(out, value, 4);
  put(out, 0, 4);
}

}  // namespace

Exif parse_exif(std::span<const std::byte> bytes) {
  Exif result;
  try {
    const Tiff tiff(bytes);
    if (const auto entry = tiff.find(tiff.first_folder(), orientation_tag))
      if (const uint32_t value = tiff.number(*entry + 8, 2); value >= 1 && value <= 8)
        result.orientation = static_cast<int>(value);
    const auto folder = tiff.find(tiff.first_folder(), exif_folder_tag);
    const auto entry = folder ? tiff.find(tiff.number(*folder + 8, 4), comment_tag) : std::nullopt;
    if (!entry) return result;
    const std::string_view value = tiff.text(tiff.number(*entry + 8, 4), tiff.number(*entry + 4, 4));
    if (value.starts_with(ascii_comment)) result.comment = value.substr(ascii_comment.size());
  } catch (const Error&) {  // what was found before the damage stays
  }
  return result;
}

std::string make_exif(const std::string& comment) {
  constexpr unsigned type_long = 4, type_undefined = 7;
  constexpr uint32_t header = 8, folder = 2 + 12 + 4;
  std::string out("II*\0", 4);
  put(out, header, 4);
  put_folder(out, exif_folder_tag, type_long, 1, header + folder);
  put_folder(out, comment_tag, type_undefined, ascii_comment.size() + comment.size(), header + 2 * folder);
  out += ascii_comment;
  return out + comment;
}

std::string comment_of(const std::map<std::string, std::string>& text) {
  return nlohmann::json(text).dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

std::map<std::string, std::string> text_of(const std::string& comment) {
  std::map<std::string, std::string> result;
  const auto json = nlohmann::json::parse(comment, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return result;
  for (const auto& [key, value] : json.items())
    if (value.is_string()) result[key] = value.get<std::string>();
  return result;
}

}  // namespace linnet
