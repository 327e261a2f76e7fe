#include "io/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <clocale>
#include <cwctype>

namespace linnet {
namespace {

uint8_t byte_at(std::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }

// The code of one well-formed character.
wint_t code_of(std::string_view character) {
  constexpr uint8_t first_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  wint_t code = byte_at(character, 0) & first_bits[character.size()];
  for (size_t k = 1; k < character.size(); ++k) code = code << 6 | (byte_at(character, k) & 0x3fu);
  return code;
}

void append(std::string& text, wint_t code) {
  if (code < 0x80) {
    text += static_cast<char>(code);
    return;
  }
  const int further = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr uint8_t first_marks[] = {0, 0xc0, 0xe0, 0xf0};
  text += static_cast<char>(first_marks[further] | code >> (6 * further));
  for (int k = further - 1; k >= 0; --k) text += static_cast<char>(0x80 | (code >> (6 * k) & 0x3f));
}

// By the tables of the C library, for its language-neutral UTF-8 locale; without that, A to Z.
wint_t small_letter(wint_t code) {
  static const locale_t unicode = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
  return unicode ? ::towlower_l(code, unicode) : code;
}

}  // namespace

std::string valid_utf8(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t length = text[0] == '\0' ? 0 : character_length(text, 0);
    result += length == 0 ? std::string_view("\xef\xbf\xbd") : text.substr(0, length);
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return result;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = character_length(text, i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string fault_of_text(std::string_view text) {
  if (text.size() > most_text_bytes)
    return fmt::format("has {} bytes, and at most {} are read", text.size(), most_text_bytes);
  if (text.find('\0') != std::string_view::npos) return "holds a zero byte";
  return is_utf8(text) ? "" : "is not UTF-8";
}

std::string lower_case(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t length = character_length(text, i);
    if (length == 0)
      result += text[i];
    else if (text.substr(i, length) == "\u0130")  // the one letter that becomes two characters
      result += "i\u0307";
    else
      append(result, small_letter(code_of(text.substr(i, length))));
    i += std::max<size_t>(length, 1);
  }
  return result;
}

}  // namespace linnet
