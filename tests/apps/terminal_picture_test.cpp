// Pictures on a terminal: which protocol it understands, and the bytes of each.
#include "terminal_picture.h"

#include <gtest/gtest.h>

#include <map>

namespace linnet::app {
namespace {

Image picture(int64_t width, int64_t height, std::vector<uint8_t> rgb) {
  return {width, height, std::move(rgb)};
}

PictureProtocol detected(const std::map<std::string, std::string>& variables) {
  return detect_picture_protocol([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::string() : found->second;
  });
}

TEST(TerminalPicture, TheEnvironmentTellsTheProtocol) {
  EXPECT_EQ(detected({}), PictureProtocol::none);
  EXPECT_EQ(detected({{"TERM", "xterm-256color"}}), PictureProtocol::none);
  EXPECT_EQ(detected({{"TERM", "xterm-kitty"}}), PictureProtocol::kitty);
  EXPECT_EQ(detected({{"TERM", "xterm-256color"}, {"KITTY_WINDOW_ID", "1"}}), PictureProtocol::kitty);
  EXPECT_EQ(detected({{"TERM", "xterm-256color"}, {"TERM_PROGRAM", "ghostty"}}), PictureProtocol::kitty);
  EXPECT_EQ(detected({{"TERM", "xterm-256color"}, {"TERM_PROGRAM", "iTerm.app"}}), PictureProtocol::iterm);
  EXPECT_EQ(detected({{"TERM", "xterm-256color"}, {"TERM_PROGRAM", "WezTerm"}}), PictureProtocol::iterm);
}

TEST(TerminalPicture, WhatDoesNotPassPicturesOnHidesTheTerminalBehindIt) {
  EXPECT_EQ(detected({{"TERM", "xterm-kitty"}, {"TMUX", "/tmp/tmux"}}), PictureProtocol::none);
  EXPECT_EQ(detected({{"TERM", "tmux-256color"}, {"KITTY_WINDOW_ID", "1"}}), PictureProtocol::none);
  EXPECT_EQ(detected({{"TERM", "screen"}, {"TERM_PROGRAM", "iTerm.app"}}), PictureProtocol::none);
}

// RFC 4648, section 10.
TEST(TerminalPicture, Base64) {
  const std::pair<const char*, const char*> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : vectors) EXPECT_EQ(base64(bytes), text);
  EXPECT_EQ(base64("\xff\xfe\xfb"), "//77");
}

TEST(TerminalPicture, KittyMakesRoomForgetsTheLastPictureAndPutsThisOne) {
  const TerminalPicture shown = kitty_picture("png", 2, 7);
  EXPECT_EQ(shown.rows, 2);
  EXPECT_EQ(shown.text,
            "\n\n\033[2A\0337"
            "\033_Ga=d,d=I,i=7,q=2\033\\"
            "\033_Ga=T,f=100,i=7,q=2,C=1,r=2,m=0;cG5n\033\\"
            "\0338\033[2B\r");
}

TEST(TerminalPicture, KittyTakesAtMost4096CharactersAtOnce) {
  const std::string png(3072 + 3, 'p');  // 4096 characters and 4
  const std::string text = kitty_picture(png, 1, 7).text;
  EXPECT_NE(text.find(",m=1;" + base64(png).substr(0, 4096) + "\033\\\033_Gm=0;cHBw\033\\\0338"),
            std::string::npos);
  EXPECT_NE(kitty_picture(png.substr(0, 3072), 1, 7).text.find(",m=0;cHBw"), std::string::npos);
}

TEST(TerminalPicture, ItermGetsAFileInline) {
  EXPECT_EQ(iterm_picture("png", 3).text,
            "\n\n\n\033[3A\0337"
            "\033]1337;File=inline=1;size=3;height=3;preserveAspectRatio=1:cG5n\a"
            "\0338\033[3B\r");
}

TEST(TerminalPicture, AHalfBlockIsTwoPixels) {
  const TerminalPicture shown = block_picture(picture(2, 2, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(shown.rows, 1);
  EXPECT_EQ(shown.text, "\033[38;2;1;2;3;48;2;7;8;9m▀\033[38;2;4;5;6;48;2;10;11;12m▀\033[0m\n");
}

TEST(TerminalPicture, BelowAnOddRowIsTheTerminalsOwnGround) {
  EXPECT_EQ(block_picture(picture(1, 1, {1, 2, 3})).text, "\033[38;2;1;2;3;49m▀\033[0m\n");
}

TEST(TerminalPicture, FitsIntoTheTerminal) {
  const Image tall = blank_image(300, 1200, 1, 2, 3);
  const TerminalSize small{20, 10, 8, 16};
  EXPECT_EQ(terminal_picture(tall, PictureProtocol::blocks, small).rows, 8);
  EXPECT_EQ(terminal_picture(tall, PictureProtocol::iterm, small).rows, 8);
  EXPECT_EQ(terminal_picture(tall, PictureProtocol::kitty, {200, 100, 8, 16}).rows, 16);  // 256 pixels
  EXPECT_EQ(terminal_picture(tall, PictureProtocol::none, small).rows, 0);
  EXPECT_EQ(terminal_picture(tall, PictureProtocol::none, small).text, "");
}

TEST(TerminalPicture, WhatIsSentIsThePictureAsPng) {
  const Image image = picture(2, 1, {1, 2, 3, 250, 251, 252});
  const TerminalPicture shown = terminal_picture(image, PictureProtocol::iterm, {80, 24, 8, 16});
  EXPECT_EQ(shown.rows, 8);  // 256 pixels wide, 128 high
  EXPECT_NE(shown.text.find(base64(png_bytes(image))), std::string::npos);
}

}  // namespace
}  // namespace linnet::app
