// The focused feature map, alone and as the first half of focused linear attention, against its formula in both
// directions; and numbers at which cubes of them would leave f32's range.
#include "ops/focused_map.h"

#include "ops/attention_reference.h"
#include "ops/operation_table.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16;
constexpr auto relu = FocusedActivation::relu, gelu = FocusedActivation::gelu;

size_t at(int64_t i) { return static_cast<size_t>(i); }

double act(FocusedActivation activation, double u) {
  return activation == relu ? std::max(u, 0.0) : 0.5 * u * std::erfc(-u / std::sqrt(2.0));
}

// One row, of which width channels are mapped; position may be null.
void map_row(double* row, int64_t width, const double* scale, const double* position,
             FocusedActivation activation) {
  double squares = 0, sixths = 0;
  for (int64_t i = 0; i < width; ++i) {
    const double u = row[i] + (position ? position[i] : 0.0);
    row[i] = (act(activation, u) + 1e-6) / std::log1p(std::exp(scale[i]));
    squares += std::pow(row[i], 2);
    sixths += std::pow(row[i], 6);
  }
  for (int64_t i = 0; i < width; ++i) row[i] = std::pow(row[i], 3) * std::sqrt(squares / sixths);
}

// x (batch, tokens, row), scale (width), positions (tokens, width) or nothing.
Values map_rows(Values x, const Values& scale, const Values& positions, int64_t tokens, int64_t row,
                FocusedActivation activation) {
  const auto width = static_cast<int64_t>(scale.size());
  for (size_t first = 0; first < x.size(); first += at(row)) {
    const size_t token = first / at(row) % at(tokens);
    map_row(&x[first], width, scale.data(), positions.empty() ? nullptr : &positions[token * at(width)],
            activation);
  }
  return x;
}

struct Case {
  Shape x;
  int64_t width;
};

void expect_right(const Case& c, DType dtype, FocusedActivation activation, bool with_positions) {
  const int64_t tokens = c.x[1], row = c.x[2];
  Row test{fmt::format("{} of width {} {} {}{}", to_string(c.x), c.width, name_of(dtype),
                       activation == relu ? "relu" : "gelu", with_positions ? " with positions" : ""),
           {random(c.x, 1, dtype), random({1, 1, c.width}, 2)},
           [=](const Inputs& in) {
             return focused_map(in[0], in[1], with_positions ? in[2] : Tensor(), activation);
           },
           [=](const std::vector<Values>& in) {
             return map_rows(in[0], in[1], with_positions ? in[2] : Values(), tokens, row, activation);
           }};
  if (with_positions) test.inputs.push_back(random({1, tokens, c.width}, 3));
  check_row(test);
}

TEST(FocusedMap, FollowsItsFormulaOverOddShapes) {
  for (const FocusedActivation activation : {relu, gelu})
    for (const DType dtype : {f32, bf16})
      for (const bool with_positions : {false, true})
        for (const Case& c :
             {Case{{1, 1, 3}, 3}, Case{{2, 3, 9}, 9}, Case{{5, 17, 24}, 24}, Case{{1, 65, 37}, 37},
              Case{{2, 17, 34}, 17}, Case{{3, 300, 16}, 8}, Case{{300, 2, 5}, 5}})
          expect_right(c, dtype, activation, with_positions);
}

TEST(FocusedMap, HandsOnTheChannelsBehindTheKeys) {
  for (const DType dtype : {f32, bf16}) {
    const Tensor kv = random({2, 5, 14}, 1, dtype), g = random({2, 5, 14}, 2, dtype);
    each_instruction_set([&] {
      const Result result = run([](const Inputs& in) { return focused_map(in[0], in[1], {}, relu); },
                                {kv, random({1, 1, 7}, 3)}, g);
      const Values before = values_of(kv), after = values_of(result.output), sent = values_of(g),
                   received = values_of(result.gradients[0]);
      for (size_t i = 0; i < before.size(); ++i) {
        if (i % 14 < 7) continue;
        EXPECT_EQ(after[i], before[i]);
        EXPECT_EQ(received[i], sent[i]);
      }
    });
  }
}

// All channels are 1e-6/softplus(0) then: their direction is that of the diagonal, which focusing leaves alone.
TEST(FocusedMap, LeavesARowWithoutAPositiveChannelItsDirection) {
  const Tensor x = Tensor::full({1, 3, 40}, -2.0f), scale = Tensor::zeros({1, 1, 40});
  each_instruction_set([&] {
    EXPECT_LT(relative_error(focused_map(x, scale, {}, relu), Values(120, 1e-6 / std::log(2.0))), 1e-5);
  });
}

TEST(FocusedMap, StandsNumbersWhoseCubesDoNot) {
  for (const float size : {1e-9f, 1e9f})
    for (const FocusedActivation activation : {relu, gelu}) {
      const Tensor x = random({1, 7, 33}, 1, f32, size), scale = random({1, 1, 33}, 2, f32, 4.0f),
                   g = random(x.shape(), 3);
      const Values expected = map_rows(values_of(x), values_of(scale), {}, 7, 33, activation);
      each_instruction_set([&] {
        const Result result =
            run([&](const Inputs& in) { return focused_map(in[0], in[1], {}, activation); }, {x, scale}, g);
        EXPECT_LT(relative_error(result.output, expected), 1e-4);
        for (const Tensor& gradient : result.gradients)
          for (const double value : values_of(gradient)) ASSERT_TRUE(std::isfinite(value));
      });
    }
}

TEST(FocusedMap, PassesNotANumberOn) {
  for (const FocusedActivation activation : {relu, gelu}) {
    Tensor x = random({1, 3, 20}, 1);
    x.mutable_data<float>()[25] = std::nanf("");
    each_instruction_set([&] {
      const Values out = values_of(focused_map(x, Tensor::zeros({1, 1, 20}), {}, activation));
      EXPECT_TRUE(std::isnan(out[25]));
      EXPECT_TRUE(std::isfinite(out[5]));
    });
  }
}

// q (batch, tokens, width), kv, scale, positions: focused attention as a model computes it.
TEST(FocusedAttention, PassesGradientsThatFiniteDifferencesConfirm) {
  const AttentionShape s{2, 15, 12, 2};
  for (const FocusedActivation activation : {relu, gelu})
    check_row({activation == relu ? "relu" : "gelu",
               {random({2, 15, 12}, 1), random({2, 15, 24}, 2), random({1, 1, 12}, 3), random({1, 15, 12}, 4)},
               [=](const Inputs& in) {
                 return linear_attention(focused_map(in[0], in[2], {}, activation),
                                         focused_map(in[1], in[2], in[3], activation), s.heads,
                                         FeatureMap::none);
               },
               [=](const std::vector<Values>& in) {
                 return linear_attention_reference(s, map_rows(in[0], in[2], {}, 15, 12, activation),
                                                   map_rows(in[1], in[2], in[3], 15, 24, activation), {},
                                                   FeatureMap::none)
                     .out;
               }});
}

}  // namespace
}  // namespace linnet::ops::test
