#include "io/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <clocale>
#include <cwctype>

namespace linnet {
namespace {

uint8_t byte_at(std::string_view text, size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0; }

// The length of the well-formed UTF-8 character at i, or 0 (overlong forms, surrogates and the like).
size_t character_length(std::string_view text, size_t i) {
  auto follows = [&](size_t k) { return (byte_at(text, i + k) & 0xc0u) == 0x80u; };
  const uint8_t a = byte_at(text, i), b = byte_at(text, i + 1);
  if (a < 0x80) return 1;
  if (a >= 0xc2 && a <= 0xdf) return follows(1) ? 2 : 0;
  if ((a == 0xe0 && b < 0xa0) || (a == 0xed && b >= 0xa0)) return 0;
  if (a >= 0xe0 && a <= 0xef) return follows(1) && follows(2) ? 3 : 0;
  if ((a == 0xf0 && b < 0x90) || (a == 0xf4 && b >= 0x90)) return 0;
  if (a >= 0xf0 && a <= 0xf4) return follows(1) && follows(2) && follows(3) ? 4 : 0;
  return 0;
}

// C0 and C1 controls, line and paragraph separators, and the marks that turn the writing direction.
bool is_harmless(std::string_view character) {
  const uint8_t a = byte_at(character, 0), b = byte_at(character, 1), c = byte_at(character, 2);
  if (character.size() == 1) return a >= 0x20 && a != 0x7f;
  if (a == 0xc2) return b >= 0xa0;
  if (a == 0xe2 && b == 0x80) return !(c >= 0x8e && c <= 0x8f) && !(c >= 0xa8 && c <= 0xae);
  if (a == 0xe2 && b == 0x81) return !(c >= 0xa6 && c <= 0xa9);
  return true;
}

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

std::string escaped(char byte) {
  if (byte == '\n') return "\\n";
  if (byte == '\t') return "\\t";
  if (byte == '\r') return "\\r";
  return fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
}

}  // namespace

std::string printable(std::string_view text, size_t limit) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t length = character_length(text, i);
    const std::string_view character = text.substr(i, length == 0 ? 1 : length);
    if (i + character.size() > limit) return result + "...";
    if (length != 0 && is_harmless(character)) {
      result += character;
    } else {
      for (const char byte : character) result += escaped(byte);
    }
    i += character.size();
  }
  return result;
}

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
  return is_utf8(text) ? "" : "is not UTF-8";
}

std::string lower_case(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t length = character_length(text, i);
    if (length == 0)
      result += text[i];
    else
      append(result, small_letter(code_of(text.substr(i, length))));
    i += std::max<size_t>(length, 1);
  }
  return result;
}

}  // namespace linnet
