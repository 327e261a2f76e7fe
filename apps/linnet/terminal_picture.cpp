#include "terminal_picture.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "io/resize.h"

namespace linnet::app {

PictureProtocol detect_picture_protocol(const Variables& variables) {
  const std::string kind = variables("TERM"), program = variables("TERM_PROGRAM");
  const auto is = [&kind](const char* name) { return kind.find(name) != std::string::npos; };
  if (!variables("TMUX").empty() || is("tmux") || is("screen")) return PictureProtocol::none;
  if (program == "iTerm.app" || program == "WezTerm") return PictureProtocol::iterm;
  if (is("kitty") || is("ghostty") || program == "ghostty" || !variables("KITTY_WINDOW_ID").empty())
    return PictureProtocol::kitty;
  return PictureProtocol::none;
}

std::string base64(std::string_view bytes) {
  static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (k < count ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) text += k <= count ? digits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

namespace {

// Makes room first, as a terminal that scrolls while it draws would take the picture along; then terminals may
// leave the cursor where they like.
TerminalPicture in_rows(const std::string& drawing, int rows) {
  return {fmt::format("{}\033[{}A\0337{}\0338\033[{}B\r", std::string(static_cast<size_t>(rows), '\n'), rows,
                      drawing, rows),
          rows};
}

}  // namespace

TerminalPicture kitty_picture(std::string_view png, int rows, uint32_t id) {
  constexpr size_t most = 4096;  // of base64 in one sequence
  const std::string data = base64(png);
  std::string text = fmt::format("\033_Ga=d,d=I,i={},q=2\033\\", id);
  for (size_t at = 0; at < data.size(); at += most) {
    const std::string first = at == 0 ? fmt::format("a=T,f=100,i={},q=2,C=1,r={},", id, rows) : std::string();
    text += fmt::format("\033_G{}m={};{}\033\\", first, at + most < data.size() ? 1 : 0, data.substr(at, most));
  }
  return in_rows(text, rows);
}

TerminalPicture iterm_picture(std::string_view png, int rows) {
  return in_rows(fmt::format("\033]1337;File=inline=1;size={};height={};preserveAspectRatio=1:{}\a", png.size(),
                             rows, base64(png)),
                 rows);
}

TerminalPicture block_picture(const Image& image) {
  TerminalPicture picture;
  for (int64_t y = 0; y < image.height; y += 2, ++picture.rows) {
    for (int64_t x = 0; x < image.width; ++x) {
      const uint8_t* upper = image.at(x, y);
      picture.text += fmt::format("\033[38;2;{};{};{}", upper[0], upper[1], upper[2]);
      if (y + 1 < image.height) {
        const uint8_t* lower = image.at(x, y + 1);
        picture.text += fmt::format(";48;2;{};{};{}m▀", lower[0], lower[1], lower[2]);
      } else {
        picture.text += ";49m▀";
      }
    }
    picture.text += "\033[0m\n";
  }
  return picture;
}

namespace {

struct Box {
  int64_t width, height;
};

// The largest of the picture's shape that fits; at least a pixel.
Box fit(const Image& image, const Box& room) {
  const double scale = std::min(static_cast<double>(room.width) / static_cast<double>(image.width),
                                static_cast<double>(room.height) / static_cast<double>(image.height));
  const auto scaled = [scale](int64_t side) {
    return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(side) * scale + 0.5));
  };
  return {scaled(image.width), scaled(image.height)};
}

// Never enlarged: terminals do that themselves.
Image shrink(const Image& image, const Box& size) {
  return size.width < image.width || size.height < image.height ? resize_box(image, size.width, size.height)
                                                                : image;
}

}  // namespace

TerminalPicture terminal_picture(const Image& image, PictureProtocol protocol, const TerminalSize& terminal) {
  if (protocol == PictureProtocol::none) return {};
  const int64_t rows = std::max(1, terminal.rows - 2), columns = std::max(1, terminal.columns - 1);
  if (protocol == PictureProtocol::blocks)
    return block_picture(
        shrink(image, fit(image, {std::min<int64_t>(64, columns), std::min<int64_t>(64, 2 * rows)})));
  constexpr int64_t most = 256;
  const Box size =
      fit(image, {std::min(most, columns * terminal.cell_width), std::min(most, rows * terminal.cell_height)});
  const auto taken =
      static_cast<int>(std::min(rows, (size.height + terminal.cell_height - 1) / terminal.cell_height));
  const std::string png = png_bytes(shrink(image, size));
  // An id of its own for each process: the pictures of earlier ones stay.
  return protocol == PictureProtocol::kitty ? kitty_picture(png, taken, static_cast<uint32_t>(::getpid()))
                                            : iterm_picture(png, taken);
}

}  // namespace linnet::app
