// Classes as people say them.
#include "pipeline/classes.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

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

TEST(Classes, ImageNetsAreKnownByNameAndInTheFieldsOrder) {
  const auto& imagenet = imagenet_class_names();
  ASSERT_EQ(imagenet.size(), 1000u);
  EXPECT_EQ(std::set<std::string>(imagenet.begin(), imagenet.end()).size(), 1000u);
  // Numbers that the field knows by heart: the pictures of DiT's paper.
  for (const auto& [index, name] : std::map<size_t, std::string>{{0, "tench"},
                                                                 {88, "macaw"},
                                                                 {207, "golden retriever"},
                                                                 {279, "Arctic fox"},
                                                                 {360, "otter"},
                                                                 {387, "lesser panda"},
                                                                 {417, "balloon"},
                                                                 {974, "geyser"},
                                                                 {979, "valley"},
                                                                 {980, "volcano"},
                                                                 {999, "toilet tissue"}})
    EXPECT_EQ(imagenet[index], name);
  EXPECT_EQ(find_class("Golden Retriever", imagenet, 1000), 207);
  EXPECT_EQ(find_class("207", imagenet, 1000), 207);
  EXPECT_EQ(search_classes("RETRIEVER", imagenet), (std::vector<int64_t>{205, 206, 207, 208, 209}));
  EXPECT_EQ(search_classes("", imagenet).size(), 1000u);
  EXPECT_EQ(search_classes("unicorn", imagenet).size(), 0u);
}

TEST(Classes, OnlyAThousandWithoutNamesAreImageNets) {
  EXPECT_EQ(names_of_classes({}, 1000).size(), 1000u);
  EXPECT_TRUE(names_of_classes({}, 999).empty());
  EXPECT_EQ(names_of_classes({"a"}, 1000), (std::vector<std::string>{"a"}));
}

}  // namespace
}  // namespace linnet
