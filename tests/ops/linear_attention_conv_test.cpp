// Linear attention with the depth-wise convolution of the values: every kernel size, grids of any form.
#include "ops/attention_reference.h"
#include "ops/linear_attention.h"
#include "ops/operation_table.h"

namespace linnet::ops::test {
namespace {

struct Grid {
  int64_t rows, columns;
};

size_t at(int64_t i) { return static_cast<size_t>(i); }

// Calls f(value place in kv, output place, weight place) for every product of the convolution.
template <class F>
void for_each_tap(const AttentionShape& s, Grid grid, int64_t kernel, F f) {
  const int64_t d = s.width, half = kernel / 2;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t y = 0; y < grid.rows; ++y)
      for (int64_t x = 0; x < grid.columns; ++x)
        for (int64_t ky = std::max(-half, -y); ky <= std::min(half, grid.rows - 1 - y); ++ky)
          for (int64_t kx = std::max(-half, -x); kx <= std::min(half, grid.columns - 1 - x); ++kx)
            for (int64_t j = 0; j < d; ++j) {
              const int64_t from = b * s.tokens + (y + ky) * grid.columns + x + kx;
              const int64_t to = b * s.tokens + y * grid.columns + x;
              f(at(from * 2 * d + d + j), at(to * d + j),
                at((j % s.head_size() * kernel + ky + half) * kernel + kx + half));
            }
}

struct Expected {
  Values out, dq, dkv, dweight, dbias;
};

Expected reference(const AttentionShape& s, Grid grid, int64_t kernel, const Values& q, const Values& kv,
                   const Values& weight, const Values& bias, const Values& g,
                   FeatureMap map = FeatureMap::relu) {
  auto attention = linear_attention_reference(s, q, kv, g, map);
  Expected result{attention.out, attention.dq, attention.dkv, Values(weight.size()), Values(bias.size())};
  for (size_t i = 0; i < result.out.size(); ++i) {
    const size_t channel = i % at(s.width) % at(s.head_size());
    result.out[i] += bias[channel];
    result.dbias[channel] += g[i];
  }
  for_each_tap(s, grid, kernel, [&](size_t value, size_t output, size_t tap) {
    result.out[output] += kv[value] * weight[tap];
    result.dkv[value] += g[output] * weight[tap];
    result.dweight[tap] += g[output] * kv[value];
  });
  return result;
}

void expect_right(const AttentionShape& s, Grid grid, int64_t kernel, DType dtype,
                  FeatureMap map = FeatureMap::relu) {
  SCOPED_TRACE(fmt::format("batch {} grid {}x{} width {} heads {} kernel {} {}", s.batch, grid.rows,
                           grid.columns, s.width, s.heads, kernel, name_of(dtype)));
  const int64_t c = s.head_size();
  const Tensor q = random_for(map, {s.batch, s.tokens, s.width}, 1, dtype);
  const Tensor kv = random_for(map, {s.batch, s.tokens, 2 * s.width}, 2, dtype);
  const Tensor weight = random({c, 1, kernel, kernel}, 3), bias = random({c}, 4),
               g = random(q.shape(), 5, dtype);
  const Expected expected = reference(s, grid, kernel, values_of(q), values_of(kv), values_of(weight),
                                      values_of(bias), values_of(g), map);
  each_instruction_set([&] {
    const Result result = run(
        [&](const Inputs& in) {
          return linear_attention_conv(in[0], in[1], in[2], in[3], s.heads, grid.rows, grid.columns, map);
        },
        {q, kv, weight, bias}, g);
    EXPECT_LT(relative_error(result.output, expected.out), tolerance(dtype));
    EXPECT_LT(relative_error(result.gradients[0], expected.dq), tolerance(dtype));
    EXPECT_LT(relative_error(result.gradients[1], expected.dkv), tolerance(dtype));
    EXPECT_LT(relative_error(result.gradients[2], expected.dweight), tolerance(dtype));
    EXPECT_LT(relative_error(result.gradients[3], expected.dbias), tolerance(dtype));
  });
}

TEST(LinearAttentionConv, FollowsItsFormulaOnEveryGridAndKernel) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const int64_t kernel : {1, 3, 5, 7})
      for (const Grid grid : {Grid{1, 9}, Grid{11, 1}, Grid{3, 17}, Grid{5, 7}, Grid{2, 33}, Grid{8, 8}})
        expect_right({2, grid.rows * grid.columns, 18, 2}, grid, kernel, dtype);
}

TEST(LinearAttentionConv, FollowsItsFormulaOverOddWidthsAndHeads) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const auto& [width, heads] : {std::pair{3, 1}, std::pair{9, 3}, std::pair{24, 1}, std::pair{36, 2},
                                       std::pair{72, 6}, std::pair{130, 1}, std::pair{144, 2}})
      expect_right({1, 35, width, heads}, {5, 7}, 5, dtype);
}

TEST(LinearAttentionConv, TakesFeaturesThatWereMappedBefore) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Grid grid : {Grid{1, 3}, Grid{17, 1}, Grid{5, 13}})
      expect_right({2, grid.rows * grid.columns, 18, 2}, grid, 5, dtype, FeatureMap::none);
}

// Grids of more than 32 rows are cut into strips; more than 1,024 tokens into parts.
TEST(LinearAttentionConv, JoinsStripsAndPartsWithoutASeam) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    expect_right({2, 50 * 3, 8, 1}, {50, 3}, 7, dtype);
    expect_right({1, 41 * 50, 24, 2}, {41, 50}, 5, dtype);
  }
}

TEST(LinearAttentionConv, PassesGradientsThatFiniteDifferencesConfirm) {
  const AttentionShape s{2, 15, 6, 2};
  const auto formula = [s](const std::vector<Values>& in) {
    return reference(s, {3, 5}, 3, in[0], in[1], in[2], in[3], Values(in[0].size())).out;
  };
  check_row({"3x5 grid",
             {random({2, 15, 6}, 1), random({2, 15, 12}, 2), random({3, 1, 3, 3}, 3), random({3}, 4)},
             [](const Inputs& in) { return linear_attention_conv(in[0], in[1], in[2], in[3], 2, 3, 5); },
             formula});
}

}  // namespace
}  // namespace linnet::ops::test
