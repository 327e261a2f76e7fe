// Attention over sequences without padding, and what else T5 is made of, against their formulas, both ways.
#include "ops/ragged_attention.h"

#include "core/memory.h"
#include "ops/activation.h"
#include "ops/arrange.h"
#include "ops/attention_reference.h"
#include "ops/int8_linear.h"
#include "ops/linear.h"
#include "ops/operation_table.h"
#include "ops/rms_norm.h"
#include "ops/streamed_linear.h"
#include "support/processor.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16;

size_t at(int64_t i) { return static_cast<size_t>(i); }

struct Matrix {
  const Values& values;
  int64_t stride, first = 0;
  double operator()(int64_t row, int64_t column) const { return values[at(row * stride + first + column)]; }
};

// One query row of one head over its sequence's keys; bias is of distance 0, null if there is none.
void attend(const RaggedAttention& how, size_t sequence, int64_t row, int64_t head, int64_t d, const Matrix& q,
            const Matrix& k, const Matrix& v, const double* bias, Values& out) {
  const int64_t begin = how.keys[sequence], end = how.keys[sequence + 1], size = d / how.heads;
  Values weights;
  double total = 0;
  for (int64_t j = begin; j < end; ++j) {
    double score = 0;
    for (int64_t c = head * size; c < (head + 1) * size; ++c)
      score += q(row, c) * k(j, c) * static_cast<double>(how.scale);
    if (bias) score += bias[(j - begin) - (row - how.queries[sequence])];
    weights.push_back(std::exp(score));
    total += weights.back();
  }
  for (int64_t c = head * size; c < (head + 1) * size; ++c)
    for (int64_t j = begin; j < end; ++j) out[at(row * d + c)] += weights[at(j - begin)] / total * v(j, c);
}

Values formula(const RaggedAttention& how, int64_t d, const Matrix& q, const Matrix& k, const Matrix& v,
               const Values* bias) {
  Values out(at(how.queries.back() * d));
  const int64_t distances = bias ? static_cast<int64_t>(bias->size()) / how.heads : 0;
  for (size_t s = 0; s + 1 < how.queries.size(); ++s)
    for (int64_t row = how.queries[s]; row < how.queries[s + 1]; ++row)
      for (int64_t head = 0; head < how.heads; ++head)
        attend(how, s, row, head, d, q, k, v, bias ? bias->data() + head * distances + distances / 2 : nullptr,
               out);
  return out;
}

const RaggedAttention cases[] = {
    {{0, 1}, {0, 1}, 1, 1.0f},
    {{0, 3, 3, 20}, {0, 5, 6, 24}, 3, 0.35f},
    {{0, 17, 18}, {0, 1, 34}, 2, 0.25f},
    {{0, 100}, {0, 7}, 1, 0.5f},
};

TEST(RaggedAttention, FollowsItsFormulaOverTexts) {
  for (const RaggedAttention& how : cases)
    for (const int64_t size : {4, 17})
      for (const DType dtype : {f32, bf16}) {
        const int64_t d = size * how.heads;
        check_row({fmt::format("cross attention of {} queries, {} heads of {}, {}", how.queries.back(),
                               how.heads, size, name_of(dtype)),
                   {random({how.queries.back(), d}, 1, dtype), random({how.keys.back(), 2 * d}, 2, dtype)},
                   [how](const Inputs& in) { return ragged_attention(in[0], in[1], how); },
                   [how, d](const std::vector<Values>& in) {
                     return formula(how, d, {in[0], d}, {in[1], 2 * d}, {in[1], 2 * d, d}, nullptr);
                   }});
      }
}

TEST(RaggedAttention, FollowsItsFormulaWithRelativePositions) {
  for (const Offsets& offsets : {Offsets{0, 1}, Offsets{0, 9, 10, 27}}) {
    const RaggedAttention how{offsets, offsets, 2, 1.0f};
    const int64_t n = offsets.back(), d = 10;
    for (const DType dtype : {f32, bf16})
      check_row(
          {fmt::format("self attention of {} tokens, {}", n, name_of(dtype)),
           {random({n, d}, 1, dtype), random({n, d}, 2, dtype), random({n, d}, 3, dtype), random({2, 37}, 4)},
           [how](const Inputs& in) { return ragged_attention(in[0], in[1], in[2], in[3], how); },
           [how](const std::vector<Values>& in) {
             return formula(how, 10, {in[0], 10}, {in[1], 10}, {in[2], 10}, &in[3]);
           }});
  }
}

// One long text among many short ones, of which each has keys of its own length.
TEST(RaggedAttention, NeedsNoMoreRoomForShortTextsBesideALongOne) {
  const int64_t heads = 8, d = heads * 32;
  Offsets offsets{0, 300};
  while (offsets.size() < 400) offsets.push_back(offsets.back() + 4);
  const RaggedAttention how{offsets, offsets, heads, 1.0f};
  const Tensor q = random({offsets.back(), d}, 1), kv = random({offsets.back(), 2 * d}, 2);
  const size_t before = memory_stats().in_use;
  reset_peak_memory();
  ragged_attention(q, kv, how);
  const auto padded_keys = static_cast<size_t>(304 + 398 * 16);
  EXPECT_LT(memory_stats().peak - before, 2 * 2 * padded_keys * static_cast<size_t>(d) * sizeof(float));
}

TEST(RaggedAttention, LargeScoresStayFinite) {
  const RaggedAttention how{{0, 5}, {0, 40}, 1, 1000.0f};
  const Tensor q = random({5, 8}, 1), kv = random({40, 16}, 2);
  each_instruction_set([&] {
    const Result result = run([&](const Inputs& in) { return ragged_attention(in[0], in[1], how); }, {q, kv},
                              Tensor::full({5, 8}, 1.0f));
    for (const Tensor& tensor : {result.output, result.gradients[0], result.gradients[1]})
      for (const float value : tensor.values<float>()) ASSERT_TRUE(std::isfinite(value));
  });
}

// One query for which all scores are enormously negative, and alike.
TEST(RaggedAttention, StandsScoresBesideWhichASumVanishes) {
  const int64_t n = 20, d = 4;
  Tensor q = random({n, d}, 1), k = random({n, d}, 2);
  const Tensor v = random({n, d}, 3), g = random({n, d}, 4);
  for (int64_t t = 0; t < n; ++t) k.mutable_data<float>()[t * d] = 1.0f;  // first channel of every key
  q.mutable_data<float>()[5 * d] = -1e30f;                                // scores −5e29
  const HeadGradients expected =
      softmax_attention_head(values_of(q), values_of(k), values_of(v), values_of(g), n, d);
  const RaggedAttention how{{0, n}, {0, n}, 1, 0.5f};
  const auto columns = [&](const Values& x, int64_t first, int64_t count) {
    return head_of(x, {1, n, count, 1}, 0, d, first);
  };
  each_instruction_set([&] {
    const Result result =
        run([&](const Inputs& in) { return ragged_attention(in[0], in[1], in[2], {}, how); }, {q, k, v}, g);
    EXPECT_LT(relative_error(result.output, expected.out), 1e-4);
    EXPECT_LT(relative_error(result.gradients[0], expected.dq), 1e-4);
    const Values dk = values_of(result.gradients[1]);  // of which the first channel is of that query's size
    for (const auto& [first, count] : {std::pair{0, 1}, {1, 3}})
      EXPECT_LT(relative_error(columns(dk, first, count), columns(expected.dk, first, count)), 1e-4) << first;
    EXPECT_LT(relative_error(result.gradients[2], expected.dv), 1e-4);
  });
}

TEST(RaggedAttention, PassesNotANumberOn) {
  const RaggedAttention how{{0, 20}, {0, 40}, 1, 0.5f};
  expect_passes_not_a_number_on(
      [&](const Inputs& in) { return ragged_attention(in[0], in[1], in[2], {}, how); },
      {random({20, 4}, 1), random({40, 4}, 2), random({40, 4}, 3)});
}

TEST(RaggedAttention, RefusesWhatDoesNotGoTogether) {
  const Tensor q = random({5, 8}, 1), kv = random({6, 16}, 2), k = random({6, 8}, 3);
  const auto refused = [](const auto& body) { EXPECT_THROW(body(), Error); };
  refused([&] { ragged_attention(q, kv, {{0, 5}, {0, 6}, 3}); });                       // heads
  refused([&] { ragged_attention(q, kv, {{0, 4}, {0, 6}, 2}); });                       // a query too many
  refused([&] { ragged_attention(q, kv, {{0, 2, 5}, {0, 6, 6}, 2}); });                 // no keys
  refused([&] { ragged_attention(q, kv, {{0, 2, 5}, {0, 6}, 2}); });                    // sequences
  refused([&] { ragged_attention(q, kv, {{0, 3, 2, 5}, {0, 1, 2, 6}, 2}); });           // backwards
  refused([&] { ragged_attention(q, k, {{0, 5}, {0, 6}, 2}); });                        // half a width
  refused([&] { ragged_attention(q, k, k, random({2, 9}, 4), {{0, 5}, {0, 6}, 2}); });  // too short a bias
  refused([&] { ragged_attention(q, random({6, 16}, 2, bf16), {{0, 5}, {0, 6}, 2}); });
}

Values rms_formula(const std::vector<Values>& in, int64_t d, double epsilon) {
  Values y;
  for (size_t row = 0; row < in[0].size(); row += at(d)) {
    double squares = 0;
    for (size_t i = 0; i < at(d); ++i) squares += in[0][row + i] * in[0][row + i] / static_cast<double>(d);
    for (size_t i = 0; i < at(d); ++i) y.push_back(in[0][row + i] / std::sqrt(squares + epsilon) * in[1][i]);
  }
  return y;
}

TEST(RmsNorm, FollowsItsFormula) {
  for (const int64_t d : {1, 3, 16, 35})
    for (const DType out : {f32, bf16})
      check_row({fmt::format("rms norm of {} to {}", d, name_of(out)),
                 {random({5, d}, 1), random({d}, 2)},
                 [out](const Inputs& in) { return rms_norm(in[0], in[1], 1e-3f, out); },
                 [d](const std::vector<Values>& in) { return rms_formula(in, d, 1e-3); }});
  EXPECT_THROW(rms_norm(random({5, 4}, 1), random({5}, 2), 1e-6f, f32), Error);
}

TEST(GatedGelu, FollowsItsFormula) {
  for (const DType dtype : {f32, bf16})
    for (const int64_t n : {1, 17, 50})
      check_row({fmt::format("gated gelu of {}, {}", n, name_of(dtype)),
                 {random({1, n}, 1, dtype, 2.0f), random({1, n}, 2, dtype)},
                 [](const Inputs& in) { return gated_gelu(in[0], in[1]); },
                 [](const std::vector<Values>& in) {
                   Values y;
                   for (size_t i = 0; i < in[0].size(); ++i) {
                     const double g = in[0][i], u = std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
                     y.push_back(0.5 * g * (1 + std::tanh(u)) * in[1][i]);
                   }
                   return y;
                 }});
  EXPECT_THROW(gated_gelu(random({2, 3}, 1), random({3, 2}, 2)), Error);
}

TEST(Transpose, SwapsRowsAndColumns) {
  for (const auto& [rows, columns] : {std::pair{3, 5}, {1, 40}, {40, 1}, {128, 32}, {129, 17}})
    check_row({fmt::format("transpose {} x {}", rows, columns),
               {random({rows, columns}, 1)},
               [](const Inputs& in) { return transpose(in[0]); },
               [rows = static_cast<size_t>(rows),
                columns = static_cast<size_t>(columns)](const std::vector<Values>& in) {
                 Values y;
                 for (size_t c = 0; c < columns; ++c)
                   for (size_t r = 0; r < rows; ++r) y.push_back(in[0][r * columns + c]);
                 return y;
               }});
}

TEST(AddRow, AddsToEveryRow) {
  check_row({"add row",
             {random({3, 5}, 1), random({1, 5}, 2)},
             [](const Inputs& in) { return add_row(in[0], in[1]); },
             [](const std::vector<Values>& in) {
               Values y;
               for (size_t i = 0; i < 15; ++i) y.push_back(in[0][i] + in[1][i % 5]);
               return y;
             }});
  EXPECT_THROW(add_row(random({3, 5}, 1), random({4}, 2)), Error);
}

TEST(ConcatColumns, LaysRowsBesideEachOther) {
  check_row({"concat columns",
             {random({3, 2}, 1), random({3, 4}, 2)},
             [](const Inputs& in) { return concat_columns(in[0], in[1]); },
             [](const std::vector<Values>& in) {
               Values y;
               for (size_t r = 0; r < 3; ++r) {
                 for (size_t c = 0; c < 2; ++c) y.push_back(in[0][r * 2 + c]);
                 for (size_t c = 0; c < 4; ++c) y.push_back(in[1][r * 4 + c]);
               }
               return y;
             }});
  EXPECT_THROW(concat_columns(random({3, 5}, 1), random({4, 5}, 2)), Error);
}

TEST(StreamedLinear, IsTheProductWithTheWeightOfAnyType) {
  for (const auto& [rows, in, out] : {std::tuple{1, 3, 5}, {7, 33, 700}, {130, 4000, 300}})
    for (const DType dtype : linnet::test::product_dtypes())
      each_instruction_set([&, rows = rows, in = in, out = out] {
        const Tensor x = random({rows, in}, 1, dtype), weight = random({out, in}, 2);
        const Int8Matrix rounded = quantize(weight);
        const Tensor floats[] = {weight, weight.to(bf16), dequantize(rounded, f32)};
        const Tensor results[] = {streamed_linear(x, weight, {}, f32),
                                  streamed_linear(x, weight.to(bf16), {}, bf16),
                                  streamed_linear(x, rounded.values, rounded.scale, f32)};
        for (size_t i = 0; i < 3; ++i) {
          const Tensor expected = linear(x.to(f32), floats[i], {}, Activation::none, f32);
          EXPECT_LT(relative_error(results[i], values_of(expected)), dtype == f32 && i != 1 ? 1e-5 : 1e-2) << i;
        }
      });
  EXPECT_TRUE(same_bytes(streamed_linear(Tensor::empty({2, 0}), Tensor::empty({3, 0}), {}, bf16),
                         Tensor::zeros({2, 3}, bf16)));
  EXPECT_THROW(streamed_linear(random({2, 3}, 1), random({4, 5}, 2), {}, f32), Error);
  EXPECT_THROW(streamed_linear(random({2, 5}, 1), quantize(random({4, 5}, 2)).values, {}, f32), Error);
}

}  // namespace
}  // namespace linnet::ops::test
