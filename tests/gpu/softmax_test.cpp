// Softmax attention on the GPU against the CPU's: heads as wide as the kernels' layouts and in between, one
// tile of keys and several, sequences that end within a tile, and scores that only a running maximum survives.
#include <array>

#include "gpu/support.h"
#include "ops/gpu_kernels.h"
#include "ops/ragged_attention.h"
#include "ops/softmax_attention.h"
#include "ops/wide_attention.h"

namespace linnet::ops::test {
namespace {

GpuRow self_attention(int64_t batch, int64_t tokens, int64_t heads, int64_t head_size, float size = 1.0f) {
  return {.name = fmt::format("self: {} x {} tokens, {} x {}", batch, tokens, heads, head_size),
          .inputs = {random({batch, tokens, 3 * heads * head_size}, 1, DType::f32, size)},
          .operation = [heads](const Inputs& in, DType) { return softmax_attention(in[0], heads); }};
}

TEST(GpuOperations, SoftmaxSelfAttention) {
  LINNET_NEED_GPU();
  // batch, tokens, heads, head size
  const std::array<int64_t, 4> cases[] = {{2, 1, 1, 8},   {3, 5, 2, 20}, {1, 33, 2, 40},  {1, 130, 1, 64},
                                          {1, 70, 1, 72}, {1, 33, 1, 1}, {1, 20, 2, 128}, {1, 35, 1, 33}};
  for (const auto& [batch, tokens, heads, head_size] : cases)
    check_on_gpu(self_attention(batch, tokens, heads, head_size));
}

// Enough of them for blocks of 128 queries.
TEST(GpuOperations, SoftmaxAttentionOfManyQueries) {
  LINNET_NEED_GPU();
  for (const int64_t head_size : {20, 64, 72}) {
    GpuRow row = self_attention(1, 66, 4, head_size);
    row.types = {DType::bf16};
    check_on_gpu(row);
  }
}

// Wider than the kernels for tensor cores take.
TEST(GpuOperations, SoftmaxAttentionOfWideHeads) {
  LINNET_NEED_GPU();
  check_on_gpu(self_attention(1, 67, 1, 136));
  check_on_gpu(self_attention(1, 3, 2, 256));
  for (const int64_t head_size : {257, 300, 513})
    check_on_gpu(self_attention(1, 7, 2, head_size));  // in slices
}

TEST(GpuOperations, SoftmaxAttentionOfLargeScores) {
  LINNET_NEED_GPU();
  GpuRow row = self_attention(1, 70, 1, 64, 30.0f);
  row.differentiable = false;  // next to nothing is left of gradients
  row.types = {DType::f32};
  check_on_gpu(row);
  // Shares are all or nothing, so few bits in a score decide much: see only that numbers stay numbers.
  for (const DType dtype : {DType::bf16, DType::f16}) {
    Tensor qkv = random({1, 70, 3 * 64}, 1, dtype, 30.0f).to(the_gpu);
    qkv.set_requires_grad(true);
    Tape tape;
    const Tensor out = softmax_attention(qkv, 1);
    tape.backward(out);
    for (const double value : values_of(out.host())) EXPECT_LT(std::abs(value), 200);
    for (const double value : values_of(qkv.grad().host())) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST(GpuOperations, SoftmaxCrossAttention) {
  LINNET_NEED_GPU();
  // batch, queries, keys, heads, head size
  const std::array<int64_t, 5> cases[] = {
      {2, 5, 33, 2, 8}, {1, 66, 3, 1, 72}, {1, 3, 130, 1, 64}, {3, 1, 2, 1, 5}};
  for (const auto& [batch, n, m, heads, head_size] : cases)
    check_on_gpu({.name = fmt::format("{} queries, {} keys, {} x {}", n, m, heads, head_size),
                  .inputs = {random({batch, n, heads * head_size}, 1), random({batch, m, heads * head_size}, 2),
                             random({batch, m, heads * head_size}, 3)},
                  .operation = [h = heads](const Inputs& in, DType) {
                    return softmax_attention(in[0], in[1], in[2], h);
                  }});
}

// Of small scores: where one share is nearly all, what rounding leaves of 16-bit gradients is little.
const RaggedAttention ragged_cases[] = {
    {{0, 3, 4, 74, 74}, {0, 5, 75, 76, 80}, 2, 0.3f},  // the last sequence has no queries
    {{0, 64, 128}, {0, 65, 66}, 1, 0.2f},              // as many queries in each
    {{0, 0, 2}, {0, 3, 6}, 3, 0.3f},
};

TEST(GpuOperations, RaggedAttention) {
  LINNET_NEED_GPU();
  for (const RaggedAttention& how : ragged_cases)
    for (const int64_t head_size : {12, 24}) {
      const int64_t width = how.heads * head_size;
      check_on_gpu(
          {.name =
               fmt::format("{} queries, {} keys, heads of {}", how.queries.back(), how.keys.back(), head_size),
           .inputs = {random({how.queries.back(), width}, 1), random({how.keys.back(), 2 * width}, 2)},
           .operation = [how](const Inputs& in, DType) { return ragged_attention(in[0], in[1], how); }});
    }
}

GpuRow with_bias(const RaggedAttention& how) {
  const int64_t width = how.heads * 16;
  return {.name = fmt::format("{} queries, {} keys, scale {}", how.queries.back(), how.keys.back(), how.scale),
          .inputs = {random({how.queries.back(), width}, 1), random({how.keys.back(), width}, 2),
                     random({how.keys.back(), width}, 3), random({how.heads, 2 * 75 - 1}, 4)},
          .typed = "ttt.",
          .operation = [how](const Inputs& in, DType) {
            return ragged_attention(in[0], in[1], in[2], in[3], how);
          }};
}

TEST(GpuOperations, RaggedAttentionWithBias) {
  LINNET_NEED_GPU();
  for (const RaggedAttention& how : ragged_cases) check_on_gpu(with_bias(how));
}

TEST(GpuOperations, RaggedAttentionOfNegativeScale) {
  LINNET_NEED_GPU();
  RaggedAttention how = ragged_cases[2];
  how.scale = -how.scale;
  check_on_gpu(with_bias(how));
  check_on_gpu({.name = "without a bias",
                .inputs = {random({how.queries.back(), 36}, 1), random({how.keys.back(), 72}, 2)},
                .operation = [how](const Inputs& in, DType) { return ragged_attention(in[0], in[1], how); }});
}

// A gradient may come in another type than the queries'.
TEST(GpuOperations, SoftmaxAttentionGradientOfAnotherType) {
  LINNET_NEED_GPU();
  const Tensor qkv = random({2, 9, 3 * 16}, 1, DType::bf16), weights = random({2, 9, 16}, 2, DType::bf16);
  const Operation operation = [](const Inputs& in) { return softmax_attention(in[0], 2); };
  const Result same = run(operation, {qkv.to(the_gpu)}, weights.to(the_gpu));
  const Result other = run(operation, {qkv.to(the_gpu)}, weights.to(DType::f32).to(the_gpu));
  EXPECT_TRUE(same_bytes(same.gradients[0].host(), other.gradients[0].host()));
}

TEST(GpuOperations, SoftmaxOfRows) {
  LINNET_NEED_GPU();
  for (const int64_t columns : {1, 7, 300, 1100}) {
    const Tensor scores = random({3, columns}, 1, DType::f32, 100.0f);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const Tensor shares = Tensor::empty({3, columns}, dtype, the_gpu);
      gpu_kernels().softmax.rows(scores.to(the_gpu).view(), shares.view(), 3, columns, 0.5f);
      Values expected = values_of(scores);
      for (int64_t row = 0; row < 3; ++row) {
        const std::span<double> of(expected.data() + row * columns, static_cast<size_t>(columns));
        const double most = *std::max_element(of.begin(), of.end());
        double sum = 0;
        for (double& x : of) sum += x = std::exp(0.5 * (x - most));
        for (double& x : of) x /= sum;
      }
      EXPECT_LT(relative_error(shares.host(), expected), gpu_tolerance(dtype)) << columns << name_of(dtype);
    }
  }
}

TEST(GpuOperations, WideAttention) {
  LINNET_NEED_GPU();
  for (const int64_t tokens : {5, 130})
    check_on_gpu(
        {.name = fmt::format("{} tokens", tokens),
         .inputs = {random({2, tokens, 24}, 1), random({2, tokens, 24}, 2), random({2, tokens, 24}, 3)},
         .operation = [](const Inputs& in, DType) { return wide_attention(in[0], in[1], in[2]); },
         .differentiable = false});
}

}  // namespace
}  // namespace linnet::ops::test
