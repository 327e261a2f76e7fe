// Results do not depend on the number of threads: the same bytes with one, two and three. (oneDNN's products
// are exempt.)
#include "ops/activation.h"
#include "ops/arrange.h"
#include "ops/compress_tokens.h"
#include "ops/focused_map.h"
#include "ops/gated_residual.h"
#include "ops/layer_norm_modulate.h"
#include "ops/linear_attention.h"
#include "ops/reduce.h"
#include "ops/softmax_attention.h"
#include "ops/support.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16;

void expect_same_bytes(const Operation& operation, const Inputs& inputs, const Shape& output) {
  const Tensor g = random(output, 77);
  each_instruction_set([&] {
    Result one;
    for (const int count : {1, 2, 3}) {
      const Threads guard(count);
      const Result result = run(operation, inputs, g);
      if (count == 1) {
        one = result;
        continue;
      }
      EXPECT_TRUE(same_bytes(one.output, result.output)) << count << " threads";
      for (size_t i = 0; i < inputs.size(); ++i)
        EXPECT_TRUE(same_bytes(one.gradients[i], result.gradients[i])) << count << " threads, gradient " << i;
    }
  });
}

TEST(ThreadCount, DoesNotChangeLinearAttention) {
  for (const DType dtype : {f32, bf16})
    expect_same_bytes([](const Inputs& in) { return linear_attention(in[0], in[1], 2); },
                      {random({2, 2050, 24}, 1, dtype), random({2, 2050, 48}, 2, dtype)}, {2, 2050, 24});
}

TEST(ThreadCount, DoesNotChangeLinearAttentionConv) {
  for (const DType dtype : {f32, bf16})
    expect_same_bytes(
        [](const Inputs& in) { return linear_attention_conv(in[0], in[1], in[2], in[3], 3, 41, 50); },
        {random({2, 2050, 36}, 1, dtype), random({2, 2050, 72}, 2, dtype), random({12, 1, 5, 5}, 3),
         random({12}, 4)},
        {2, 2050, 36});
}

TEST(ThreadCount, DoesNotChangeFocusedAttention) {
  for (const DType dtype : {f32, bf16})
    for (const auto activation : {FocusedActivation::relu, FocusedActivation::gelu}) {
      expect_same_bytes([=](const Inputs& in) { return focused_map(in[0], in[1], in[2], activation); },
                        {random({2, 1030, 72}, 1, dtype), random({1, 1, 36}, 2), random({1, 1030, 36}, 3)},
                        {2, 1030, 72});
      expect_same_bytes([=](const Inputs& in) { return focused_map(in[0], in[1], {}, activation); },
                        {random({300, 7, 24}, 1, dtype), random({1, 1, 24}, 2)}, {300, 7, 24});
    }
  for (const DType dtype : {f32, bf16})
    expect_same_bytes([](const Inputs& in) { return linear_attention(in[0], in[1], 2, FeatureMap::none); },
                      {random({2, 2050, 24}, 1, dtype), random({2, 2050, 48}, 2, dtype)}, {2, 2050, 24});
}

TEST(ThreadCount, DoesNotChangeSoftmaxAttention) {
  for (const DType dtype : {f32, bf16})
    expect_same_bytes([](const Inputs& in) { return softmax_attention(in[0], 3); },
                      {random({2, 300, 108}, 1, dtype)}, {2, 300, 36});
}

TEST(ThreadCount, DoesNotChangeSoftmaxAttentionOverFewerKeys) {
  for (const DType dtype : {f32, bf16})
    expect_same_bytes(
        [](const Inputs& in) { return softmax_attention(in[0], in[1], in[2], 3); },
        {random({2, 300, 36}, 1, dtype), random({2, 140, 36}, 2, dtype), random({2, 140, 36}, 3, dtype)},
        {2, 300, 36});
}

TEST(ThreadCount, DoesNotChangeTheCompressionOfTokens) {
  for (const DType dtype : {f32, bf16})
    expect_same_bytes([](const Inputs& in) { return compress_tokens(in[0], in[1], in[2], 41, 50); },
                      {random({2, 2050, 36}, 1, dtype), random({36, 1, 2, 2}, 2), random({36}, 3)},
                      {2, 500, 36});
}

TEST(ThreadCount, DoesNotChangeLayerNorm) {
  for (const DType dtype : {f32, bf16})
    expect_same_bytes([](const Inputs& in) { return layer_norm_modulate(in[0], in[1], in[2], 1e-6f, f32); },
                      {random({2, 1025, 72}, 1, dtype), random({2, 72}, 2), random({2, 72}, 3)}, {2, 1025, 72});
}

TEST(ThreadCount, DoesNotChangeElementwiseOperations) {
  expect_same_bytes([](const Inputs& in) { return gated_residual(in[0], in[1], in[2]); },
                    {random({5, 100, 72}, 1), random({5, 72}, 2), random({5, 100, 72}, 3)}, {5, 100, 72});
  expect_same_bytes([](const Inputs& in) { return silu(in[0], f32); }, {random({50001}, 1)}, {50001});
  expect_same_bytes([](const Inputs& in) { return gelu_tanh(in[0]); }, {random({50001}, 1)}, {50001});
}

TEST(ThreadCount, DoesNotChangeTransposition) {
  expect_same_bytes([](const Inputs& in) { return transpose(in[0]); }, {random({301, 1000}, 1)}, {1000, 301});
}

TEST(ThreadCount, DoesNotChangeReductions) {
  const Tensor rows = random({1025, 200}, 1), many = random({300001}, 2);
  each_instruction_set([&] {
    Tensor sums;
    double squares = 0;
    for (const int count : {1, 2, 3}) {
      const Threads guard(count);
      if (count == 1) {
        sums = sum_rows(rows);
        squares = sum_of_squares(many);
      }
      EXPECT_TRUE(same_bytes(sums, sum_rows(rows)));
      EXPECT_EQ(squares, sum_of_squares(many));
    }
  });
}

}  // namespace
}  // namespace linnet::ops::test
