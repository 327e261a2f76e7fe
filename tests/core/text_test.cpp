#include "core/text.h"

#include <gtest/gtest.h>

#include <vector>

namespace linnet {
namespace {

TEST(EditDistance, CountsEachKindOfEdit) {
  EXPECT_EQ(edit_distance("star", "star"), 0u);
  EXPECT_EQ(edit_distance("", "star"), 4u);
  EXPECT_EQ(edit_distance("star", "stars"), 1u);
  EXPECT_EQ(edit_distance("star", "tar"), 1u);
  EXPECT_EQ(edit_distance("star", "stir"), 1u);
  EXPECT_EQ(edit_distance("star", "satr"), 1u);
}

TEST(Nearest, FindsWhatWasMeant) {
  const std::vector<std::string> names = {"red-star", "red-ring", "blue-star"};
  EXPECT_EQ(nearest("red-satr", names), "red-star");
  EXPECT_EQ(nearest("blu-star", names), "blue-star");
}

TEST(Nearest, SuggestsNothingForSomethingElse) {
  const std::vector<std::string> names = {"red-star", "red-ring"};
  EXPECT_EQ(nearest("elephants", names), "");
  EXPECT_EQ(nearest("", names), "");
}

}  // namespace
}  // namespace linnet
