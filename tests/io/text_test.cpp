// Text from strangers: made printable, and lower case.
#include "io/text.h"

#include <gtest/gtest.h>

namespace linnet {
namespace {

TEST(Printable, EscapesWhatMovesTheCursorAndKeepsWhatIsText) {
  EXPECT_EQ(printable("grün 画 🦜"), "grün 画 🦜");
  EXPECT_EQ(printable("a\nb\t\r\x1b\x7f"), R"(a\nb\t\r\x1b\x7f)");
  EXPECT_EQ(printable("\xff\xc3"), R"(\xff\xc3)");
  EXPECT_EQ(printable("\xed\xa0\x80"), R"(\xed\xa0\x80)");
  EXPECT_EQ(printable("\xe2\x80\xae"), R"(\xe2\x80\xae)");
  EXPECT_EQ(printable(std::string(1, '\0')), R"(\x00)");
}

TEST(Printable, CutsBetweenCharacters) {
  EXPECT_EQ(printable("abcdef", 3), "abc...");
  EXPECT_EQ(printable("abc", 3), "abc");
  EXPECT_EQ(printable("aüb", 2), "a...");
}

TEST(FaultOfText, IsWhatIsNotUtf8OrTooLongOrHoldsAZeroByte) {
  EXPECT_EQ(fault_of_text(""), "");
  EXPECT_EQ(fault_of_text(std::string(65536, 'a')), "");
  EXPECT_EQ(fault_of_text(std::string(65537, 'a')), "has 65537 bytes, and at most 65536 are read");
  EXPECT_EQ(fault_of_text("caf\xe9"), "is not UTF-8");
  EXPECT_EQ(fault_of_text(std::string_view("a\0b", 3)), "holds a zero byte");
}

TEST(LowerCase, KnowsEveryScript) {
  EXPECT_EQ(lower_case("Linnet 2: ÄRGER, ΣΊΣΥΦΟΣ, ЁЖ, 𐐀, 画 🦊"),
            "linnet 2: ärger, σίσυφοσ, ёж, 𐐨, 画 🦊");
  EXPECT_EQ(lower_case("@[`{"), "@[`{");
  EXPECT_EQ(lower_case("\u0130i"), "i\u0307i");
  EXPECT_EQ(lower_case(""), "");
}

TEST(LowerCase, LeavesWhatIsNoUtf8) {
  EXPECT_EQ(lower_case("A\xff\xc3"
                       "B"),
            "a\xff\xc3"
            "b");
  EXPECT_EQ(lower_case(std::string_view("A\0B", 3)), std::string_view("a\0b", 3));
}

}  // namespace
}  // namespace linnet
