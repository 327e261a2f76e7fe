#include "ops/linear_attention.h"

#include "gpu/support.h"

namespace linnet::ops::test {
namespace {

struct Attention {
  int64_t batch, rows, columns, heads, head_size;
  int64_t kernel = 0;  // of the convolution; 0: none
  FeatureMap map = FeatureMap::relu;
};

// Of features that were mapped before, those of queries and keys should not be small in the mean: their ratio
// is then ill-conditioned for any arithmetic.
Tensor features(const Shape& shape, uint64_t seed, int64_t positive) {
  Tensor x = random(shape, seed);
  for (int64_t i = 0; i < x.numel(); ++i)
    if (i % shape[-1] < positive) x.mutable_data<float>()[i] = std::abs(x.mutable_data<float>()[i]);
  return x;
}

void expect_right(const Attention& a, const std::vector<DType>& types = {DType::f32, DType::bf16, DType::f16}) {
  const int64_t d = a.heads * a.head_size, tokens = a.rows * a.columns;
  const int64_t positive = a.map == FeatureMap::none ? d : 0;
  GpuRow row{
      .name = fmt::format("batch {} grid {}x{} heads {}x{} kernel {} {}", a.batch, a.rows, a.columns, a.heads,
                          a.head_size, a.kernel, a.map == FeatureMap::none ? "mapped before" : "relu"),
      .inputs = {features({a.batch, tokens, d}, 1, positive), features({a.batch, tokens, 2 * d}, 2, positive)},
      .types = types};
  if (a.kernel == 0) {
    row.operation = [=](const Inputs& in, DType) { return linear_attention(in[0], in[1], a.heads, a.map); };
  } else {
    row.inputs.push_back(random({a.head_size, 1, a.kernel, a.kernel}, 3, DType::f32, 0.2f));
    row.inputs.push_back(random({a.head_size}, 4));
    row.typed = "tt..";
    row.operation = [=](const Inputs& in, DType) {
      return linear_attention_conv(in[0], in[1], in[2], in[3], a.heads, a.rows, a.columns, a.map);
    };
  }
  check_on_gpu(row);
}

const std::vector<DType> halves = {DType::bf16, DType::f16};

TEST(GpuOperations, LinearAttentionOfEveryHeadSize) {
  LINNET_NEED_GPU();
  for (const int64_t head_size : {3, 8, 20, 32, 48})
    for (const auto map : {FeatureMap::relu, FeatureMap::none})
      expect_right({.batch = 2, .rows = 3, .columns = 3, .heads = 3, .head_size = head_size, .map = map});
  for (const int64_t head_size : {72, 192, 256, 288})
    expect_right({.batch = 1, .rows = 1, .columns = 12, .heads = 1, .head_size = head_size}, {DType::bf16});
}

// In chunks of 192 columns, as text-to-image models of two heads need.
TEST(GpuOperations, LinearAttentionOfHeadsInChunks) {
  LINNET_NEED_GPU();
  for (const auto map : {FeatureMap::relu, FeatureMap::none})
    expect_right({.batch = 1, .rows = 1, .columns = 37, .heads = 2, .head_size = 296, .map = map}, halves);
  expect_right({.batch = 1, .rows = 5, .columns = 7, .heads = 1, .head_size = 576, .kernel = 5}, {DType::bf16});
  expect_right({.batch = 1, .rows = 1, .columns = 70, .heads = 1, .head_size = 320}, {DType::bf16});
}

// Few blocks: the tokens are cut into parts; more of them than one tile of an answer or one stage of a product.
TEST(GpuOperations, LinearAttentionOverPartsAndTiles) {
  LINNET_NEED_GPU();
  for (const auto map : {FeatureMap::relu, FeatureMap::none}) {
    expect_right({.batch = 1, .rows = 1, .columns = 300, .heads = 1, .head_size = 32, .map = map}, halves);
    expect_right({.batch = 1, .rows = 1, .columns = 145, .heads = 1, .head_size = 48, .map = map}, halves);
    expect_right({.batch = 1, .rows = 1, .columns = 131, .heads = 1, .head_size = 20, .map = map});
  }
  expect_right({.batch = 3, .rows = 12, .columns = 12, .heads = 2, .head_size = 8});
  expect_right({.batch = 4, .rows = 1, .columns = 230, .heads = 2, .head_size = 24}, halves);
  expect_right({.batch = 1, .rows = 1, .columns = 70, .heads = 1, .head_size = 288}, {DType::bf16});
}

TEST(GpuOperations, LinearAttentionWithConvolution) {
  LINNET_NEED_GPU();
  for (const int64_t kernel : {1, 3, 5, 7}) {
    expect_right({.batch = 2, .rows = 5, .columns = 7, .heads = 2, .head_size = 8, .kernel = kernel});
    expect_right({.batch = 1, .rows = 3, .columns = 3, .heads = 3, .head_size = 5, .kernel = kernel},
                 {DType::f32});
  }
  expect_right({.batch = 1, .rows = 18, .columns = 19, .heads = 2, .head_size = 20, .kernel = 5}, {DType::f32});
  expect_right({.batch = 3, .rows = 8, .columns = 8, .heads = 2, .head_size = 48, .kernel = 5}, halves);
  expect_right({.batch = 1, .rows = 17, .columns = 34, .heads = 1, .head_size = 8, .kernel = 3}, {DType::bf16});
  expect_right(
      {.batch = 2, .rows = 4, .columns = 9, .heads = 1, .head_size = 32, .kernel = 3, .map = FeatureMap::none});
}

// More tiles than one down, across and over channels, and than one a block; packed and not.
TEST(GpuOperations, LinearAttentionWithConvolutionOverTiles) {
  LINNET_NEED_GPU();
  for (const int64_t kernel : {3, 5, 7})
    expect_right({.batch = 1, .rows = 20, .columns = 36, .heads = 1, .head_size = 16, .kernel = kernel},
                 halves);
  expect_right({.batch = 29, .rows = 3, .columns = 3, .heads = 1, .head_size = 8, .kernel = 5});
  expect_right({.batch = 2, .rows = 20, .columns = 9, .heads = 3, .head_size = 24, .kernel = 5});
  expect_right({.batch = 1, .rows = 19, .columns = 21, .heads = 3, .head_size = 23, .kernel = 5}, halves);
}

// Heads as wide as real models', with the convolution: of each of the kernels' widths.
TEST(GpuOperations, LinearAttentionWithConvolutionOfWideHeads) {
  LINNET_NEED_GPU();
  for (const int64_t head_size : {40, 72, 128, 192, 264, 288})
    expect_right({.batch = 1, .rows = 3, .columns = 5, .heads = 2, .head_size = head_size, .kernel = 5},
                 {DType::bf16});
  expect_right({.batch = 1, .rows = 27, .columns = 17, .heads = 1, .head_size = 192, .kernel = 5},
               {DType::bf16});
  expect_right({.batch = 2,
                .rows = 19,
                .columns = 16,
                .heads = 1,
                .head_size = 104,
                .kernel = 5,
                .map = FeatureMap::none},
               {DType::f16});
}

// What Hopper's products of groups of warps multiply: stages are filled again, tokens end within a tile, and
// all ways without a convolution, a map, or a division.
TEST(GpuOperations, LinearAttentionOfHeadsForGroupsOfWarps) {
  LINNET_NEED_GPU();
  expect_right({.batch = 1, .rows = 1, .columns = 700, .heads = 1, .head_size = 192}, {DType::bf16});
  for (const int64_t head_size : {192, 288})
    expect_right(
        {.batch = 3, .rows = 5, .columns = 29, .heads = 2, .head_size = head_size, .map = FeatureMap::none},
        {DType::f16});
}

// What is multiplied by all pairs of tokens where that is asked for: an odd and an even number of tiles, tokens
// that end within one, more tasks than blocks, and all ways with and without a convolution and a map.
TEST(GpuOperations, LinearAttentionOfFewTokens) {
  LINNET_NEED_GPU();
  for (const int64_t head_size : {192, 256, 288})
    expect_right({.batch = 2, .rows = 9, .columns = 15, .heads = 2, .head_size = head_size, .kernel = 5},
                 {DType::bf16});
  expect_right({.batch = 5, .rows = 5, .columns = 13, .heads = 1, .head_size = 192}, {DType::bf16});
  expect_right({.batch = 1, .rows = 16, .columns = 16, .heads = 1, .head_size = 288, .kernel = 5},
               {DType::bf16});
  for (const int64_t columns : {2, 64, 200})
    expect_right(
        {.batch = 3, .rows = 1, .columns = columns, .heads = 2, .head_size = 192, .map = FeatureMap::none},
        {DType::bf16});
}

// The convolution by tensor cores: grids wider than half a tile; channels, columns and rows that end within
// one; more tiles than a block begins with.
TEST(GpuOperations, LinearAttentionWithConvolutionByPatches) {
  LINNET_NEED_GPU();
  expect_right({.batch = 3, .rows = 21, .columns = 35, .heads = 3, .head_size = 24, .kernel = 5}, halves);
  expect_right({.batch = 1, .rows = 2, .columns = 65, .heads = 1, .head_size = 40, .kernel = 5}, halves);
}

TEST(GpuOperations, LinearAttentionFetchesItsWeights) {
  LINNET_NEED_GPU();
  const Tensor q = random({1, 6, 8}, 1), kv = random({1, 6, 16}, 2), weight = random({8, 1, 3, 3}, 3),
               bias = random({8}, 4);
  const Tensor there = linear_attention_conv(q.to(the_gpu), kv.to(the_gpu), weight, bias, 1, 2, 3);
  EXPECT_LT(relative_error(there.host(), values_of(linear_attention_conv(q, kv, weight, bias, 1, 2, 3))), 1e-5);
}

TEST(GpuOperations, LinearAttentionKeepsNaN) {
  LINNET_NEED_GPU();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Tensor q = random({1, 4, 8}, 1);
    q.mutable_data<float>()[8 + 3] = std::numeric_limits<float>::quiet_NaN();
    const Tensor out = linear_attention(q.to(dtype).to(the_gpu), random({1, 4, 16}, 2, dtype).to(the_gpu), 1);
    const Values values = values_of(out.host());
    for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(std::isnan(values[i]), i / 8 == 1) << i;
  }
}

}  // namespace
}  // namespace linnet::ops::test
