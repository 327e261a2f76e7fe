// Texts and sizes on their way to a picture.
#include "pipeline/paint_text.h"

#include <gtest/gtest.h>

#include "pipeline/text_encoding.h"
#include "support/refusal.h"

namespace linnet {
namespace {

TEST(Cleaning, IsThatOfDiffusersOrOfPixArt) {
  EXPECT_EQ(clean("  Two RED Stars\n", Cleaning::lower), "two red stars");
  EXPECT_EQ(clean("  Two RED Stars\n", Cleaning::strip), "Two RED Stars");
  EXPECT_EQ(clean("ÄRGER im Café, ΣΊΣΥΦΟΣ, 🦊", Cleaning::lower),
            "ärger im café, σίσυφοσ, 🦊");
  EXPECT_EQ(clean(" \t ", Cleaning::lower), "");
  test::expect_refused("not UTF-8", [] { clean("caf\xe9", Cleaning::strip); });
}

TEST(PictureSize, IsTheNearestOfThoseThatTheModelKnows) {
  EXPECT_EQ(snap_size({1024, 1024}, 1024, 16), (SizeInPixels{1024, 1024}));
  EXPECT_EQ(snap_size({768, 1024}, 1024, 16), (SizeInPixels{832, 1152}));
  EXPECT_EQ(snap_size({1080, 1920}, 1024, 16), (SizeInPixels{768, 1344}));
  EXPECT_EQ(snap_size({1920, 1080}, 512, 16), (SizeInPixels{672, 384}));
  EXPECT_EQ(snap_size({100, 10000}, 1024, 16), (SizeInPixels{512, 2048}));
  EXPECT_EQ(snap_size({10000, 100}, 256, 16), (SizeInPixels{512, 128}));
  // Ratios of 0.281 that only the model of 2048 pixels has turned.
  EXPECT_EQ(snap_size({28, 9}, 1024, 16), (SizeInPixels{1728, 576}));
  EXPECT_EQ(snap_size({28, 9}, 2048, 16), (SizeInPixels{3584, 1152}));
  EXPECT_EQ(snap_size({50, 30}, 64, 16), (SizeInPixels{48, 32}));
  EXPECT_EQ(snap_size({1, 1}, 64, 16), (SizeInPixels{16, 16}));
}

TEST(PictureSize, IsReadAsPeopleWriteIt) {
  EXPECT_EQ(size_from_text("1024x768"), (SizeInPixels{768, 1024}));
  for (const char* text : {"", "x", "5", "5x", "x5", "5x5x5", "-5x5", "5 x 5", "99999x1", "1x0"})
    test::expect_refused("1024x768", [&] { size_from_text(text); });
}

TextStates three() {  // of 2, 1 and 3 tokens
  return {Tensor::from<float>({1, 2, 3, 4, 5, 6}).reshape({6, 1}), {0, 2, 3, 6}};
}

TEST(TextStates, AreChosenAndJoined) {
  const TextStates chosen = select(three(), {2, 0, 2}, {2, 9, 1});
  EXPECT_EQ(chosen.offsets, (ops::Offsets{0, 2, 4, 5}));
  const std::vector<float> values(chosen.states.data<float>(), chosen.states.data<float>() + 5);
  EXPECT_EQ(values, (std::vector<float>{4, 5, 1, 2, 4}));
  const TextStates both = join(chosen, three());
  EXPECT_EQ(both.offsets, (ops::Offsets{0, 2, 4, 5, 7, 8, 11}));
  EXPECT_EQ(both.states.data<float>()[10], 6);
}

}  // namespace
}  // namespace linnet
