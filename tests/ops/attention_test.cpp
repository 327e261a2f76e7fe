// Linear and softmax attention against their formulas, forward and backward, over the shapes at which the
// kernels cut tokens and channels differently, and with numbers at which naive sums would overflow or lose
// their digits.
#include "core/memory.h"
#include "ops/attention_reference.h"
#include "ops/linear_attention.h"
#include "ops/operation_table.h"
#include "ops/reduce.h"
#include "ops/softmax_attention.h"

namespace linnet::ops::test {
namespace {

std::string name_of_case(const AttentionShape& s, DType dtype) {
  return fmt::format("batch {} tokens {} width {} heads {} {}", s.batch, s.tokens, s.width, s.heads,
                     name_of(dtype));
}

double norm_of(const Tensor& x) { return std::sqrt(sum_of_squares(x.to(DType::f32))); }

void expect_linear_attention_right(const AttentionShape& s, DType dtype, FeatureMap map = FeatureMap::relu) {
  SCOPED_TRACE(name_of_case(s, dtype) + (map == FeatureMap::none ? " features" : ""));
  const Tensor q = random_for(map, {s.batch, s.tokens, s.width}, 1, dtype);
  const Tensor kv = random_for(map, {s.batch, s.tokens, 2 * s.width}, 2, dtype);
  const Tensor g = random(q.shape(), 3, dtype);
  const auto expected = linear_attention_reference(s, values_of(q), values_of(kv), values_of(g), map);
  each_instruction_set([&] {
    const Result result =
        run([&](const Inputs& in) { return linear_attention(in[0], in[1], s.heads, map); }, {q, kv}, g);
    EXPECT_EQ(result.output.dtype(), dtype);
    EXPECT_LT(relative_error(result.output, expected.out), tolerance(dtype));
    // With one token, o = v whatever q is: dq is 0, and has no size of its own to compare with.
    if (s.tokens == 1)
      EXPECT_LT(norm_of(result.gradients[0]), tolerance(dtype) * norm_of(g));
    else
      EXPECT_LT(relative_error(result.gradients[0], expected.dq), tolerance(dtype));
    EXPECT_LT(relative_error(result.gradients[1], expected.dkv), tolerance(dtype));
  });
}

void expect_softmax_attention_right(const AttentionShape& s, DType dtype, float scale = 1.0f) {
  SCOPED_TRACE(name_of_case(s, dtype));
  const Tensor qkv = random({s.batch, s.tokens, 3 * s.width}, 4, dtype, scale);
  const Tensor g = random({s.batch, s.tokens, s.width}, 5, dtype);
  const auto expected = softmax_attention_reference(s, values_of(qkv), values_of(g));
  each_instruction_set([&] {
    const Result result = run([&](const Inputs& in) { return softmax_attention(in[0], s.heads); }, {qkv}, g);
    EXPECT_EQ(result.output.dtype(), dtype);
    EXPECT_LT(relative_error(result.output, expected.out), tolerance(dtype));
    EXPECT_LT(relative_error(result.gradients[0], expected.dqkv), tolerance(dtype));
  });
}

const std::vector<AttentionShape> linear_shapes{{1, 1, 3, 1},     {2, 3, 9, 3},     {5, 17, 24, 1},
                                                {1, 65, 36, 2},   {2, 100, 72, 6},  {2, 64, 130, 1},
                                                {1, 1024, 32, 2}, {2, 1025, 24, 2}, {1, 2050, 36, 3}};

TEST(LinearAttention, FollowsItsFormulaOverOddShapes) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const AttentionShape& s : linear_shapes) expect_linear_attention_right(s, dtype);
}

TEST(LinearAttention, TakesFeaturesThatWereMappedBefore) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const AttentionShape& s : linear_shapes) expect_linear_attention_right(s, dtype, FeatureMap::none);
}

// With q = 1 and v = 3: 3z/z' for z = Σk of 4 tokens and a denominator z' = z ± 4e-6.
TEST(LinearAttention, KeepsTheDenominatorOfFeaturesAwayFromZero) {
  const Tensor q = Tensor::full({1, 4, 1}, 1.0f);
  const auto answer = [&](float k) {
    Tensor kv = Tensor::full({1, 4, 2}, 3.0f);
    for (int64_t t = 0; t < 4; ++t) kv.mutable_data<float>()[2 * t] = k;
    return linear_attention(q, kv, 1, FeatureMap::none).data<float>()[0];
  };
  each_instruction_set([&] {
    EXPECT_NEAR(answer(0.0f), 0.0f, 1e-5f);
    EXPECT_NEAR(answer(1e-6f), 1.5f, 1e-5f);
    EXPECT_NEAR(answer(-1e-6f), 1.5f, 1e-5f);  // where z + 4e-6 would be 0
    EXPECT_NEAR(answer(2.0f), 3.0f, 1e-5f);
    EXPECT_NEAR(answer(-2.0f), 3.0f, 1e-5f);
  });
}

TEST(SoftmaxAttention, FollowsItsFormulaOverOddShapes) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const AttentionShape& s : std::vector<AttentionShape>{{1, 1, 3, 1},
                                                               {2, 3, 9, 3},
                                                               {5, 17, 24, 1},
                                                               {1, 65, 36, 2},
                                                               {2, 100, 72, 6},
                                                               {1, 130, 130, 1},
                                                               {1, 96, 32, 2},
                                                               {1, 128, 24, 3},
                                                               {1, 193, 36, 3},
                                                               {1, 1025, 16, 1}})
      expect_softmax_attention_right(s, dtype);
}

TEST(SoftmaxAttention, TakesAnyNumberOfKeysOfTheirOwn) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const auto& [s, keys] : std::vector<std::pair<AttentionShape, int64_t>>{{{1, 1, 3, 1}, 2},
                                                                                 {{3, 20, 6, 2}, 5},
                                                                                 {{2, 5, 9, 3}, 34},
                                                                                 {{1, 97, 8, 2}, 129},
                                                                                 {{1, 193, 4, 1}, 1}})
      check_row({name_of_case(s, dtype) + fmt::format(", {} keys", keys),
                 {random({s.batch, s.tokens, s.width}, 1, dtype), random({s.batch, keys, s.width}, 2, dtype),
                  random({s.batch, keys, s.width}, 3, dtype)},
                 [heads = s.heads](const Inputs& in) { return softmax_attention(in[0], in[1], in[2], heads); },
                 [s = s, keys = keys](const std::vector<Values>& in) {
                   return softmax_attention_apart(s, keys, in[0], in[1], in[2]);
                 }});
}

TEST(LinearAttention, KeepsItsDigitsOver16384Tokens) {
  const AttentionShape s{1, 16384, 32, 2};
  expect_linear_attention_right(s, DType::bf16);
  expect_linear_attention_right(s, DType::f32);
}

// Values with a common part: the sum over tokens grows to where 16 bits would no longer add anything.
TEST(LinearAttention, KeepsItsDigitsWhenSumsGrowLarge) {
  const AttentionShape s{1, 16384, 16, 1};
  const Tensor q = Tensor::full({1, s.tokens, s.width}, 1.0f).to(DType::bf16);
  const Tensor kv = Tensor::full({1, s.tokens, 2 * s.width}, 3.0f).to(DType::bf16);
  each_instruction_set([&] {
    EXPECT_LT(relative_error(linear_attention(q, kv, 1), Values(static_cast<size_t>(q.numel()), 3.0)), 1e-6);
  });
}

TEST(LinearAttention, AnswersQueriesWithoutAPositiveChannelByTheMeanValue) {
  const Tensor q = Tensor::full({1, 5, 8}, -1.0f), k = Tensor::full({1, 5, 8}, -2.0f);
  const Tensor v = random({1, 5, 8}, 1);
  Tensor kv = Tensor::empty({1, 5, 16});
  Values mean(8, 0.0), expected;
  for (int64_t t = 0; t < 5; ++t)
    for (int64_t i = 0; i < 8; ++i) {
      kv.mutable_data<float>()[t * 16 + i] = -2.0f;
      kv.mutable_data<float>()[t * 16 + 8 + i] = v.data<float>()[t * 8 + i];
      mean[static_cast<size_t>(i)] += static_cast<double>(v.data<float>()[t * 8 + i]) / 5;
    }
  for (int64_t t = 0; t < 5; ++t) expected.insert(expected.end(), mean.begin(), mean.end());
  each_instruction_set([&] { EXPECT_LT(relative_error(linear_attention(q, kv, 1), expected), 1e-5); });
}

TEST(LinearAttention, PassesNotANumberOn) {
  for (const int64_t place : {0, 1, 2}) {
    Tensor q = random({1, 33, 5}, 1), kv = random({1, 33, 10}, 2);
    (place == 0 ? q : kv).mutable_data<float>()[place == 2 ? 7 : 2] = std::nanf("");
    each_instruction_set([&] {
      double sum = 0;
      for (const double x : values_of(linear_attention(q, kv, 1))) sum += x;
      EXPECT_TRUE(std::isnan(sum)) << "in q, k, v: " << place;
    });
  }
}

TEST(SoftmaxAttention, StandsScoresOfTwoHundred) {
  for (const int64_t tokens : {17, 200}) expect_softmax_attention_right({1, tokens, 16, 1}, DType::f32, 7.0f);
}

// One key far above all others, in the last block; one query for which all scores are enormously negative.
TEST(SoftmaxAttention, StandsScoresThatAlmostAllVanish) {
  const AttentionShape s{1, 300, 4, 1};
  Tensor qkv = random({1, s.tokens, 12}, 6);
  float* x = qkv.mutable_data<float>();
  for (int64_t t = 0; t < s.tokens; ++t) x[t * 12 + 4] = 1.0f;  // first channel of every key
  x[299 * 12 + 4] = 400.0f;
  x[5 * 12] = -1e30f;  // scores −5e29
  x[140 * 12] = 1e4f;  // scores 5,000 and 2,000,000
  const Tensor g = random({1, s.tokens, 4}, 7);
  const auto expected = softmax_attention_reference(s, values_of(qkv), values_of(g));
  const auto columns = [&](const Values& of, int64_t first, int64_t count) {
    return head_of(of, {1, s.tokens, count, 1}, 0, 12, first);
  };
  each_instruction_set([&] {
    const Result result = run([](const Inputs& in) { return softmax_attention(in[0], 1); }, {qkv}, g);
    EXPECT_LT(relative_error(result.output, expected.out), 1e-4);
    const Values gradient = values_of(result.gradients[0]);
    // q; the keys' first channel, whose gradient is of the size of that query, and the others; v
    for (const auto& [first, count] : {std::pair{0, 4}, {4, 1}, {5, 3}, {8, 4}})
      EXPECT_LT(relative_error(columns(gradient, first, count), columns(expected.dqkv, first, count)), 1e-3)
          << "columns from " << first;
  });
}

TEST(SoftmaxAttention, PassesNotANumberOn) {
  for (const int64_t tokens : {5, 300})
    expect_passes_not_a_number_on(
        [](const Inputs& in) { return softmax_attention(in[0], in[1], in[2], 1); },
        {random({1, tokens, 4}, 1), random({1, tokens, 4}, 2), random({1, tokens, 4}, 3)});
}

TEST(SoftmaxAttention, WithoutQueriesKeysAndValuesGetNoGradient) {
  const Tensor none = Tensor::empty({1, 0, 8}), k = random({1, 130, 8}, 1), v = random({1, 130, 8}, 2);
  const Threads one(1);
  each_instruction_set([&] {
    Tensor::full({36864}, 1.0f);  // working memory of that size now has other numbers in it
    const Result result =
        run([](const Inputs& in) { return softmax_attention(in[0], in[1], in[2], 2); }, {none, k, v}, none);
    for (const size_t i : {size_t{1}, size_t{2}})
      EXPECT_TRUE(same_bytes(result.gradients[i], Tensor::zeros(k.shape()))) << i;
  });
}

TEST(SoftmaxAttention, NeverHoldsTheMatrixOfScores) {
  const int64_t tokens = 4096;
  Tensor qkv = random({1, tokens, 48}, 8);
  qkv.set_requires_grad(true);
  const size_t before = memory_stats().in_use;
  reset_peak_memory();
  {
    Tape tape;
    const Tensor out = softmax_attention(qkv, 1);
    tape.backward(out);
  }
  const size_t matrix = static_cast<size_t>(tokens * tokens) * sizeof(float);
  EXPECT_LT(memory_stats().peak - before, matrix / 8);
}

}  // namespace
}  // namespace linnet::ops::test
