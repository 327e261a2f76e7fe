// Shapes: extents, limits, and how they read in messages.
#include "core/shape.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"

namespace linnet {
namespace {

TEST(Shape, KnowsItsExtents) {
  const Shape shape{2, 3, 4};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape.numel(), 24);
  EXPECT_EQ(shape.rows(), 6);
  EXPECT_EQ(shape[1], 3);
  EXPECT_EQ(shape[-1], 4);
  EXPECT_EQ(shape.with_last(7), (Shape{2, 3, 7}));
  EXPECT_EQ(to_string(shape), "(2, 3, 4)");
}

TEST(Shape, OfAScalarHasOneElement) {
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ(Shape{}.rank(), 0);
  EXPECT_EQ(to_string(Shape{}), "()");
  EXPECT_THROW((void)Shape{}.with_last(1), Error);
}

TEST(Shape, MayBeEmpty) {
  EXPECT_EQ((Shape{4, 0, 2}).numel(), 0);
  EXPECT_EQ((Shape{0, 3}).rows(), 0);
}

TEST(Shape, HasAtMostSixExtents) {
  EXPECT_EQ((Shape{1, 1, 1, 1, 1, 2}).rank(), 6);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), Error);
}

TEST(Shape, RefusesNegativeExtents) { EXPECT_THROW((Shape{2, -1}), Error); }

TEST(Shape, RefusesMoreThan2ToThe60ElementsSoThatBytesCanBeCounted) {
  const int64_t most = int64_t{1} << 60;
  EXPECT_EQ((Shape{most}).numel(), most);
  EXPECT_EQ((Shape{most / 4, 4}).numel(), most);
  EXPECT_THROW((Shape{most, 2}), Error);
  EXPECT_THROW((Shape{INT64_MAX}), Error);
  EXPECT_THROW((Shape{int64_t{1} << 32, int64_t{1} << 29}), Error);
}

TEST(Shape, RefusesAHugeShapeEvenIfItIsEmptySoThatPartialProductsFit) {
  EXPECT_THROW((Shape{int64_t{1} << 40, int64_t{1} << 40, 0}), Error);
  EXPECT_THROW((Shape{0, int64_t{1} << 40, int64_t{1} << 40}), Error);
}

TEST(Shape, ComparesByRankAndExtents) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2}), (Shape{2, 1}));
}

}  // namespace
}  // namespace linnet
