// Resampling against Pillow's dumps (tests/reference/make_image_dumps.py).
#include "io/resize.h"

#include <gtest/gtest.h>

namespace linnet {
namespace {

Image dump(const std::string& name) {
  return read_image(std::filesystem::path(LINNET_TEST_DATA) / "images" / (name + ".png"));
}

TEST(CenterCrop, IsAdmsGreyLevelForGreyLevel) {
  const Image source = dump("source");
  for (const int size : {16, 24, 48, 71, 100})
    EXPECT_EQ(center_crop(source, size), dump("center_crop_" + std::to_string(size))) << size;
}

TEST(Resize, BicubicIsPillowsGreyLevelForGreyLevel) {
  const Image source = dump("source");
  EXPECT_EQ(resize_bicubic(source, 40, 33), dump("bicubic_40x33"));
  EXPECT_EQ(resize_bicubic(source, 130, 90), dump("bicubic_130x90"));
}

TEST(Resize, BoxIsPillowsGreyLevelForGreyLevel) {
  EXPECT_EQ(resize_box(dump("source"), 40, 33), dump("box_40x33"));
}

// By PixArt's formulas, and torchvision's of its crop.
TEST(CoverCrop, RoundsAsPixArtDoes) {
  const Image source = dump("source"), wide = resize_bicubic(source, 11, 8);
  EXPECT_EQ(cover_crop(wide, 8, 8), crop(wide, 2, 0, 8, 8));    // of 1.5 pixels the even number
  EXPECT_EQ(cover_crop(wide, 10, 8), crop(wide, 0, 0, 10, 8));  // and of 0.5
  const Image photo = resize_bicubic(source, 1080, 720);
  EXPECT_EQ(cover_crop(photo, 1232, 832), crop(resize_bicubic(photo, 1248, 832), 8, 0, 1232, 832));
}

TEST(Resize, ImpossibleSizesAreRefused) {
  EXPECT_THROW(resize_bicubic(dump("tiny"), 0, 5), Error);
  EXPECT_THROW(resize_box(dump("tiny"), 5, 1 << 20), Error);
  EXPECT_THROW(center_crop(Image{}, 5), Error);
}

TEST(FlipHorizontal, TwiceIsTheSamePicture) {
  const Image source = dump("tiny");
  const Image flipped = flip_horizontal(source);
  EXPECT_TRUE(std::equal(source.at(0, 2), source.at(0, 2) + 3, flipped.at(source.width - 1, 2)));
  EXPECT_EQ(flip_horizontal(flipped), source);
}

}  // namespace
}  // namespace linnet
