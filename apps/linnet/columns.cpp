// wcwidth() would tell the same, but only of the characters that the C library's current locale has.
#include "columns.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "core/printable.h"

namespace linnet::app {
namespace {

struct Range {
  uint32_t first, last;
};

// Wide and full-width characters (Unicode Standard Annex 11) and emoji. Where only some of a block are, the
// whole block: a line that is cut short does no harm, one that wraps does.
constexpr Range wide[] = {
    {0x1100, 0x115f},    // Hangul's first consonants
    {0x231a, 0x231b},    // watch, hourglass
    {0x2329, 0x232a},    // angle brackets
    {0x23e9, 0x23f3},    // clocks, buttons of a player
    {0x25fd, 0x25fe},    // small squares
    {0x2600, 0x27bf},    // symbols and dingbats, of which many are emoji
    {0x2b1b, 0x2b1c},    // large squares
    {0x2b50, 0x2b55},    // star, circle
    {0x2e80, 0x303e},    // radicals, punctuation
    {0x3041, 0xa4cf},    // kana, ideographs, Yi
    {0xa960, 0xa97f},    // Hangul's old consonants
    {0xac00, 0xd7a3},    // Hangul
    {0xf900, 0xfaff},    // ideographs for compatibility
    {0xfe10, 0xfe19},    // upright punctuation
    {0xfe30, 0xfe6f},    // forms for compatibility
    {0xff01, 0xff60},    // full-width ASCII
    {0xffe0, 0xffe6},    // full-width signs
    {0x16fe0, 0x1b2ff},  // Tangut, Khitan, more kana
    {0x1f004, 0x1f004},  // a tile of Mahjong
    {0x1f0cf, 0x1f0cf},  // the joker
    {0x1f18e, 0x1f19a},  // squared letters
    {0x1f200, 0x1f64f},  // emoji
    {0x1f680, 0x1f6ff},  // vehicles
    {0x1f7e0, 0x1f7f0},  // coloured circles and squares
    {0x1f900, 0x1f9ff},  // more emoji
    {0x1fa70, 0x1faff},  // and more
    {0x20000, 0x3fffd},  // more ideographs
};

// Of a well-formed character.
uint32_t code_point(std::string_view character) {
  const auto first = static_cast<uint8_t>(character[0]);
  if (character.size() == 1) return first;
  uint32_t code = first & (0x7fu >> character.size());
  for (const char next : character.substr(1)) code = code << 6 | (static_cast<uint8_t>(next) & 0x3fu);
  return code;
}

bool is_wide(uint32_t code) {
  const Range* range = std::ranges::lower_bound(wide, code, {}, &Range::last);
  return range != std::end(wide) && code >= range->first;
}

struct Character {
  size_t bytes;
  int columns;
};

Character character_at(std::string_view text, size_t i) {
  const size_t length = character_length(text, i);
  if (length == 0) return {1, 1};
  return {length, is_wide(code_point(text.substr(i, length))) ? 2 : 1};
}

}  // namespace

int columns_of(std::string_view text) {
  int columns = 0;
  for (size_t i = 0; i < text.size();) {
    const Character next = character_at(text, i);
    columns += next.columns;
    i += next.bytes;
  }
  return columns;
}

std::string_view beginning(std::string_view text, int columns) {
  size_t end = 0;
  while (end < text.size()) {
    const Character next = character_at(text, end);
    if (next.columns > columns) break;
    columns -= next.columns;
    end += next.bytes;
  }
  return text.substr(0, end);
}

}  // namespace linnet::app
