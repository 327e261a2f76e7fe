// Tensors: what shares memory and what does not, and what is refused.
#include "core/tensor.h"

#include <gtest/gtest.h>

#include <cmath>

namespace linnet {
namespace {

Tensor counting(const Shape& shape) {
  Tensor result = Tensor::empty(shape);
  for (int64_t i = 0; i < result.numel(); ++i) result.mutable_data<float>()[i] = static_cast<float>(i);
  return result;
}

TEST(Tensor, IsUndefinedUntilMade) {
  EXPECT_FALSE(Tensor().defined());
  EXPECT_TRUE(Tensor::empty({0}).defined());
  EXPECT_THROW((void)Tensor().data<float>(), Error);
}

TEST(Tensor, IsMadeOfValues) {
  const Tensor x = Tensor::from<float>({1, 2, 3});
  EXPECT_EQ(x.shape(), (Shape{3}));
  EXPECT_EQ(x.values<float>()[2], 3.0f);
  EXPECT_EQ(Tensor::zeros({2, 2}).data<float>()[3], 0.0f);
  EXPECT_EQ(Tensor::full({2}, 7).data<float>()[1], 7.0f);
  const std::vector<float> four(4);
  EXPECT_THROW(Tensor::from<float>(four, {3}), Error);
}

TEST(Tensor, OfImpossibleSizeIsRefused) {
  // Four or eight bytes an element must not wrap round to a small block.
  for (const int64_t n : {int64_t{1} << 62, int64_t{1} << 61, int64_t{1} << 60})
    EXPECT_THROW((void)Tensor::empty({n}, DType::f64), Error);
}

TEST(Tensor, MemoryIsAlignedForSimd) {
  for (int64_t n : {1, 3, 17, 1000})
    EXPECT_EQ(reinterpret_cast<uintptr_t>(Tensor::empty({n}, DType::u8).raw()) % 64, 0u);
}

TEST(Tensor, CopiesShareMemoryAndClonesDoNot) {
  Tensor x = counting({4});
  const Tensor copy = x, clone = x.clone();
  x.mutable_data<float>()[0] = 9;
  EXPECT_EQ(copy.data<float>()[0], 9.0f);
  EXPECT_EQ(clone.data<float>()[0], 0.0f);
}

TEST(Tensor, ReshapeSeesTheSameMemory) {
  Tensor x = counting({2, 3});
  Tensor y = x.reshape({3, 2});
  EXPECT_EQ(y.raw(), x.raw());
  EXPECT_EQ(y.shape(), (Shape{3, 2}));
  EXPECT_THROW((void)x.reshape({7}), Error);
}

TEST(Tensor, ReshapeSharesTheGradientSlot) {
  Tensor x = counting({2, 3});
  x.set_requires_grad(true);
  EXPECT_EQ(x.reshape({6}).grad_slot(), x.grad_slot());
  EXPECT_FALSE(x.detach().requires_grad());
  EXPECT_FALSE(x.clone().requires_grad());
  EXPECT_FALSE(x.rows(0, 1).requires_grad());
}

TEST(Tensor, RowsAreAView) {
  Tensor x = counting({4, 3});
  const Tensor middle = x.rows(1, 3);
  EXPECT_EQ(middle.shape(), (Shape{2, 3}));
  EXPECT_EQ(middle.data<float>()[0], 3.0f);
  x.mutable_data<float>()[3] = -1;
  EXPECT_EQ(middle.data<float>()[0], -1.0f);
}

TEST(Tensor, RowsMayBeNone) {
  EXPECT_EQ(counting({4, 3}).rows(4, 4).numel(), 0);
  EXPECT_EQ(Tensor::empty({0, 3}).rows(0, 0).numel(), 0);
}

TEST(Tensor, RowsOutsideAreRefused) {
  const Tensor x = counting({4, 3});
  EXPECT_THROW((void)x.rows(-1, 2), Error);
  EXPECT_THROW((void)x.rows(3, 2), Error);
  EXPECT_THROW((void)x.rows(0, 5), Error);
  EXPECT_THROW((void)Tensor::full({}, 1).rows(0, 0), Error);
}

TEST(Tensor, RowsKeepTheMemoryAlive) {
  Tensor rows;
  {
    Tensor x = counting({4, 3});
    rows = x.rows(3, 4);
  }
  EXPECT_EQ(rows.data<float>()[2], 11.0f);
}

TEST(Tensor, BorrowedMemoryIsReadOnlyAndItsOwnerLives) {
  auto owner = std::make_shared<std::vector<float>>(4, 2.5f);
  const std::weak_ptr<std::vector<float>> watch = owner;
  Tensor x = Tensor::borrow(owner->data(), {2, 2}, DType::f32, owner);
  owner.reset();
  Tensor view = x.rows(1, 2).reshape({2});
  x = Tensor();
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(view.data<float>()[1], 2.5f);
  EXPECT_THROW((void)view.mutable_raw(), Error);
  EXPECT_FALSE(view.clone().read_only());
  view = Tensor();
  EXPECT_TRUE(watch.expired());
}

TEST(Tensor, RefusesTheWrongElementType) {
  try {
    (void)counting({2}).data<int64_t>();
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "a tensor of i64 was expected, this one is f32");
  }
}

TEST(Tensor, ItemWantsOneElement) {
  EXPECT_EQ(Tensor::full({1, 1}, 3).item(), 3.0f);
  EXPECT_THROW((void)counting({2}).item(), Error);
}

TEST(Tensor, ConvertsBetweenFloatingPointTypes) {
  const Tensor x = Tensor::from<float>({1, -2.5f, 1e-8f, 1e6f, INFINITY, NAN});
  EXPECT_EQ(x.to(DType::f32).raw(), x.raw());
  const Tensor half = x.to(DType::f16).to(DType::f32), brain = x.to(DType::bf16).to(DType::f32);
  EXPECT_EQ(half.data<float>()[1], -2.5f);
  EXPECT_EQ(half.data<float>()[2], 0.0f);
  EXPECT_EQ(half.data<float>()[3], INFINITY);
  EXPECT_TRUE(std::isnan(half.data<float>()[5]));
  EXPECT_EQ(brain.data<float>()[3], 999424.0f);
  EXPECT_EQ(brain.data<float>()[4], INFINITY);
  EXPECT_TRUE(std::isnan(brain.data<float>()[5]));
  EXPECT_EQ(Tensor::from<double>({0.1}).to(DType::f32).data<float>()[0], 0.1f);
}

TEST(Tensor, RefusesConversionsOfIntegers) {
  EXPECT_THROW((void)Tensor::from<int32_t>({1}).to(DType::f32), Error);
  EXPECT_THROW((void)counting({1}).to(DType::i8), Error);
}

}  // namespace
}  // namespace linnet
