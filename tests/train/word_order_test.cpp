// What the states of texts tell of the order of their pieces, against its formula, in both directions.
#include "train/word_order.h"

#include "ops/operation_table.h"
#include "support/compare.h"

namespace linnet {
namespace {

using ops::test::Inputs;
using ops::test::Values;

constexpr int64_t width = 20, places = 6;

Values formula(const std::vector<Values>& in, const ops::Offsets& offsets) {
  const Values& states = in[0];
  const Tensor directions = directions_of_places(places, width);
  double total = 0;
  int64_t piece = 0;
  for (size_t text = 0; text + 1 < offsets.size(); ++text)
    for (int64_t place = 0; piece < offsets[text + 1]; ++piece, ++place) {
      double sum = 0, own = 0;
      for (int64_t candidate = 0; candidate < places; ++candidate) {
        double product = 0;
        for (int64_t i = 0; i < width; ++i)
          product += states[static_cast<size_t>(piece * width + i)] *
                     static_cast<double>(directions.data<float>()[candidate * width + i]);
        sum += std::exp(product);
        if (candidate == place) own = product;
      }
      total += std::log(sum) - own;
    }
  return {total / static_cast<double>(piece)};
}

TEST(WordOrder, FollowsItsFormula) {
  for (const ops::Offsets& offsets : {ops::Offsets{0, 1}, ops::Offsets{0, 4, 5, 11}})
    ops::test::check_row({fmt::format("{} texts", offsets.size() - 1),
                          {ops::test::random({offsets.back(), width}, 3, DType::f32, 2.0f)},
                          [&](const Inputs& in) {
                            return word_order_loss({in[0], offsets}, directions_of_places(places, width));
                          },
                          [&](const std::vector<Values>& in) { return formula(in, offsets); }});
}

// So a text's pieces have the same to say in a batch of short texts as beside a long one.
TEST(WordOrder, APlaceHasItsDirectionHoweverManyThereAre) {
  const Tensor few = directions_of_places(3, width), many = directions_of_places(300, width);
  EXPECT_EQ(test::relative_error(few, many.rows(0, 3)), 0);
  double square = 0;
  for (const float value : many.values<float>())
    square += static_cast<double>(value) * static_cast<double>(value);
  EXPECT_NEAR(square / 300, 1, 0.05);  // unit vectors
}

TEST(WordOrder, StatesThatPointToTheirPlacesCostLittle) {
  const Tensor directions = directions_of_places(4, 64);
  Tensor states = directions.clone();
  for (int64_t i = 0; i < states.numel(); ++i) states.mutable_data<float>()[i] *= 20;
  EXPECT_LT(word_order_loss({states, {0, 4}}, directions).item(), 0.01f);
  EXPECT_GT(word_order_loss({states, {0, 2, 4}}, directions).item(), 1);  // those of another text
}

TEST(WordOrder, ATextOfMorePiecesThanPlacesIsRefused) {
  EXPECT_THROW(word_order_loss({Tensor::zeros({3, 8}), {0, 3}}, directions_of_places(2, 8)), Error);
}

}  // namespace
}  // namespace linnet
