// Formats: protobuf's wire format (https://protobuf.dev/programming-guides/encoding) of sentencepiece's
// sentencepiece_model.proto, and in its normalizers the double arrays of darts-clone
// (https://github.com/s-yata).
#include "io/sentencepiece_model.h"

#include <optional>

#include "core/error.h"
#include "io/text.h"

namespace linnet {
namespace {

constexpr size_t longest_piece = 1024;  // the library recurses once for each byte
constexpr size_t most_pieces = 1'000'000;
constexpr size_t longest_replacement = 256;  // Unicode's own compatibility forms have 33 bytes at most
constexpr size_t most_test_bytes = size_t{1} << 20;

// The fields of one message, one after the other.
class Fields {
 public:
  Fields(std::string_view message, const std::string& source) : left_(message), source_(source) {}

  /// False at the message's end.
  bool next() {
    if (left_.empty()) return false;
    const uint64_t key = number();
    field_ = key >> 3;
    bytes_.reset();
    switch (key & 7) {
      case 0: number(); break;
      case 1: take(8); break;
      case 2: bytes_ = take(number()); break;
      case 5: take(4); break;
      default: refuse();
    }
    return true;
  }
  /// Whether the field has this number, and bytes for its value.
  bool is(uint64_t field) const { return field_ == field && bytes_; }
  std::string_view bytes() const { return *bytes_; }

 private:
  [[noreturn]] void refuse() const { fail("{}: this is no SentencePiece model", printable(source_)); }
  uint64_t number() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    refuse();
  }
  std::string_view take(uint64_t count) {
    if (count > left_.size()) refuse();
    const std::string_view taken = left_.substr(0, count);
    left_.remove_prefix(count);
    return taken;
  }

  std::string_view left_;
  const std::string& source_;
  uint64_t field_ = 0;
  std::optional<std::string_view> bytes_;
};

uint32_t word_at(std::string_view bytes, size_t i) {
  uint32_t word = 0;
  for (size_t k = 0; k < 4; ++k) word |= uint32_t{static_cast<uint8_t>(bytes[4 * i + k])} << (8 * k);
  return word;
}

// A walk goes from a unit to those that differ from its own place and offset in the last byte, one for each
// character; a unit with a leaf has the place of its text in the one of character 0.
bool stays_inside(std::string_view units, size_t text_bytes) {
  const size_t count = units.size() / 4;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t unit = word_at(units, i);
    const bool is_leaf = unit >> 31 != 0;
    if (is_leaf && i > 0) continue;
    const size_t next = i ^ size_t { unit >> 10 << ((unit & 0x200) >> 6) };
    if ((next | 0xff) >= count) return false;
    const bool has_leaf = (unit & 0x100) != 0;
    if (has_leaf && (word_at(units, next) & 0x7fffffff) >= text_bytes) return false;
  }
  return count > 0;
}

// Texts that end in a zero byte each.
bool are_short(std::string_view texts) {
  for (size_t begin = 0; begin < texts.size();) {
    const size_t end = texts.find('\0', begin);
    if (end == std::string_view::npos || end - begin > longest_replacement) return false;
    begin = end + 1;
  }
  return true;
}

// The length of a double array, the double array, and the texts that its leaves name.
bool is_sound_table(std::string_view table) {
  if (table.empty()) return true;  // nothing is replaced
  if (table.size() < 4) return false;
  const size_t units = word_at(table, 0);
  if (units > table.size() - 4 || units % 4 != 0) return false;
  const std::string_view texts = table.substr(4 + units);
  return stays_inside(table.substr(4, units), texts.size()) && are_short(texts);
}

void check_piece(std::string_view message, const std::string& source) {
  for (Fields fields(message, source); fields.next();) {
    if (!fields.is(1)) continue;
    const std::string_view piece = fields.bytes();
    check(piece.size() <= longest_piece, "{}: a piece of this tokenizer has {} bytes, and at most {} are read",
          printable(source), piece.size(), longest_piece);
    check(piece.find('\0') == std::string_view::npos, "{}: a piece of this tokenizer has a zero byte",
          printable(source));
  }
}

void check_normalizer(std::string_view message, const std::string& source) {
  for (Fields fields(message, source); fields.next();)
    check(!fields.is(2) || is_sound_table(fields.bytes()),
          "{}: the table by which this tokenizer normalizes texts is damaged", printable(source));
}

}  // namespace

void check_sentencepiece_model(std::string_view model, const std::string& source) {
  constexpr uint64_t piece = 1, normalizer = 3, tests = 4, denormalizer = 5;
  size_t pieces = 0, test_bytes = 0;
  for (Fields fields(model, source); fields.next();) {
    if (fields.is(piece)) {
      check(++pieces <= most_pieces, "{}: this tokenizer has more than {} pieces", printable(source),
            most_pieces);
      check_piece(fields.bytes(), source);
    } else if (fields.is(normalizer) || fields.is(denormalizer)) {
      check_normalizer(fields.bytes(), source);
    } else if (fields.is(tests)) {
      test_bytes += fields.bytes().size();
      check(test_bytes <= most_test_bytes, "{}: this tokenizer's own tests have more than {} bytes",
            printable(source), most_test_bytes);
    }
  }
}

}  // namespace linnet
