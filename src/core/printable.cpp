#include "core/printable.h"

#include <fmt/format.h>

#include <cstdint>

namespace linnet {
namespace {

uint8_t byte_at(std::string_view text, size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0; }

// C0 and C1 controls, line and paragraph separators, and the marks that turn the writing direction.
bool is_harmless(std::string_view character) {
  const uint8_t a = byte_at(character, 0), b = byte_at(character, 1), c = byte_at(character, 2);
  if (character.size() == 1) return a >= 0x20 && a != 0x7f;
  if (a == 0xc2) return b >= 0xa0;
  if (a == 0xe2 && b == 0x80) return !(c >= 0x8e && c <= 0x8f) && !(c >= 0xa8 && c <= 0xae);
  if (a == 0xe2 && b == 0x81) return !(c >= 0xa6 && c <= 0xa9);
  return true;
}

std::string escaped(char byte) {
  if (byte == '\n') return "\\n";
  if (byte == '\t') return "\\t";
  if (byte == '\r') return "\\r";
  return fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
}

}  // namespace

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

std::string counted(int64_t count, std::string_view noun) {
  const char* const plural = count == 1 ? "" : noun.ends_with('s') ? "es" : "s";
  return fmt::format("{} {}{}", count, noun, plural);
}

}  // namespace linnet
