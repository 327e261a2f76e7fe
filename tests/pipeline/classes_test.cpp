// Classes as people say them.
#include "pipeline/classes.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace linnet {
namespace {

const std::vector<std::string> names = {"red-star", "blue-ring", "tench, Tinca tinca", "7"};

std::string complaint(const char* text) {
  try {
    find_classes(text, names, 4);
  } catch (const UsageError& error) {
    return error.what();
  }
  return {};
}

TEST(Classes, NamesAreFoundHoweverTheyAreSpelt) {
  for (const char* text : {"red-star", "Red Star", " RED_STAR ", "0"})
    EXPECT_EQ(find_class(text, names, 4), 0) << text;
}

TEST(Classes, AListIsReadInOrderAndRepetitionsAreKept) {
  EXPECT_EQ(find_classes("blue-ring,red-star,1", names, 4), (std::vector<int64_t>{1, 0, 1}));
}

TEST(Classes, ANameWithACommaIsOneClass) {
  EXPECT_EQ(find_classes("tench, tinca tinca", names, 4), std::vector<int64_t>{2});
}

TEST(Classes, ANameGoesBeforeAnIndex) { EXPECT_EQ(find_class("7", names, 4), 3); }

TEST(Classes, TheNearestNameIsSuggested) {
  EXPECT_NE(complaint("bleu-ring").find("\"blue-ring\""), std::string::npos);
  EXPECT_NE(complaint("red-star,blue_rign").find("\"blue-ring\""), std::string::npos);
}

TEST(Classes, WhatIsNoClassIsRefused) {
  for (const char* text : {"", ",", "red-star,", "-1", "4", "1.0", "zebra", "99999999999999999999"})
    EXPECT_NE(complaint(text), "") << text;
}

TEST(Classes, WithoutNamesOnlyIndicesAreKnown) {
  EXPECT_EQ(find_class("999", {}, 1000), 999);
  EXPECT_THROW(find_class("red-star", {}, 1000), UsageError);
  EXPECT_EQ(class_name(207, {}), "207");
}

}  // namespace
}  // namespace linnet
