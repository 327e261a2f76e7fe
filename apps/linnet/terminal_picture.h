// Pictures on a terminal: the escape sequences of those that show them, half blocks for all others.
// Kitty's protocol: sw.kovidgoyal.net/kitty/graphics-protocol; iTerm2's: iterm2.com/documentation-images.html.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "io/image.h"
#include "terminal.h"

namespace linnet::app {

enum class PictureProtocol : uint8_t { none, kitty, iterm, blocks };

/// An environment variable's value, empty without one.
using Variables = std::function<std::string(const char* name)>;
/// What the terminal says that it understands: none, kitty (also Ghostty) or iterm (also WezTerm). None within
/// tmux and screen, which do not pass pictures on.
PictureProtocol detect_picture_protocol(const Variables& variables);

/// Drawn from the start of a row on; leaves the cursor at the start of the row below the last.
struct TerminalPicture {
  std::string text;
  int rows = 0;
};

std::string base64(std::string_view bytes);
/// A PNG, so many rows high. A picture that was shown with this id before, from 1 on, disappears.
TerminalPicture kitty_picture(std::string_view png, int rows, uint32_t id);
TerminalPicture iterm_picture(std::string_view png, int rows);
/// Two pixels a character in 24-bit colour.
TerminalPicture block_picture(const Image& image);

/// At most 256 pixels a side, or 64 of half blocks, and never higher than the terminal. Protocol none: nothing.
TerminalPicture terminal_picture(const Image& image, PictureProtocol protocol, const TerminalSize& terminal);

}  // namespace linnet::app
