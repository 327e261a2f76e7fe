// How much room text takes on a terminal.
#include "columns.h"

#include <gtest/gtest.h>

namespace linnet::app {
namespace {

TEST(Columns, AreOneOfMostCharacters) {
  EXPECT_EQ(columns_of(""), 0);
  EXPECT_EQ(columns_of("a/ü.png"), 7);
  EXPECT_EQ(columns_of("▏█ × λ₁ …"), 9);
  EXPECT_EQ(columns_of("Жук"), 3);
  EXPECT_EQ(columns_of("\xff\xe4\xb8"), 3);  // no UTF-8
}

TEST(Columns, AreTwoOfWideCharactersAndEmoji) {
  EXPECT_EQ(columns_of("写真/赤い星"), 11);
  EXPECT_EQ(columns_of("한국어"), 6);
  EXPECT_EQ(columns_of("ＡＢ"), 4);
  EXPECT_EQ(columns_of("ｱ"), 1);  // half as wide
  EXPECT_EQ(columns_of("⭐🌟🚀🤖"), 8);
  EXPECT_EQ(columns_of("𠀀"), 2);
}

TEST(Beginning, IsOfWholeCharactersThatFit) {
  EXPECT_EQ(beginning("abc", 2), "ab");
  EXPECT_EQ(beginning("abc", 0), "");
  EXPECT_EQ(beginning("abc", 9), "abc");
  EXPECT_EQ(beginning("a写真", 4), "a写");  // half of the next one would wrap
  EXPECT_EQ(beginning("a写真", 5), "a写真");
  EXPECT_EQ(beginning("\xff\xff", 1), "\xff");
}

}  // namespace
}  // namespace linnet::app
