// Every operation refuses what it cannot do with one sentence that says what was found.
#include "ops/activation.h"
#include "ops/arrange.h"
#include "ops/cast.h"
#include "ops/compress_tokens.h"
#include "ops/focused_map.h"
#include "ops/gated_residual.h"
#include "ops/layer_norm_modulate.h"
#include "ops/linear.h"
#include "ops/linear_attention.h"
#include "ops/reduce.h"
#include "ops/softmax_attention.h"
#include "ops/support.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;

Tensor of(const Shape& shape, DType dtype = f32) { return Tensor::zeros(shape, dtype); }

void expect_refused(const std::string& words, const std::function<void()>& body) {
  const std::string sentence = error_of(body);
  EXPECT_NE(sentence.find(words), std::string::npos)
      << "expected \"" << words << "\", found \"" << sentence << "\"";
  EXPECT_EQ(sentence.find('\n'), std::string::npos);
}

TEST(Refusals, Activations) {
  expect_refused("silu works in f32 or bf16, not f16", [] { silu(of({3}, f16), f32); });
  expect_refused("silu works in f32 or bf16, not f16", [] { silu(of({3}), f16); });
  expect_refused("gelu_tanh works in f32 or bf16, not i64", [] { gelu_tanh(of({3}, DType::i64)); });
  expect_refused("a tensor is missing", [] { gelu_tanh({}); });
  expect_refused("cannot convert i64 to bf16", [] { cast(of({3}, DType::i64), bf16); });
}

TEST(Refusals, LayerNormModulate) {
  const auto norm = [](const Tensor& x, const Tensor& shift, const Tensor& scale, DType out) {
    return [=] { layer_norm_modulate(x, shift, scale, 1e-6f, out); };
  };
  expect_refused("x (2, 3) does not go", norm(of({2, 3}), of({2, 3}), of({2, 3}), f32));
  expect_refused("shift (1, 4)", norm(of({2, 3, 4}), of({1, 4}), of({2, 4}), f32));
  expect_refused("scale (2, 5)", norm(of({2, 3, 4}), of({2, 4}), of({2, 5}), f32));
  expect_refused("f32 or bf16, not f16", norm(of({2, 3, 4}, f16), of({2, 4}), of({2, 4}), f32));
  expect_refused("f32 or bf16, not f16", norm(of({2, 3, 4}), of({2, 4}), of({2, 4}), f16));
  expect_refused("f32 was expected", norm(of({2, 3, 4}), of({2, 4}, bf16), of({2, 4}), f32));
}

TEST(Refusals, GatedResidual) {
  expect_refused("gate (2, 5)", [] { gated_residual(of({2, 3, 4}), of({2, 5}), of({2, 3, 4})); });
  expect_refused("y (2, 3, 5)", [] { gated_residual(of({2, 3, 4}), of({2, 4}), of({2, 3, 5})); });
  expect_refused("not f16", [] { gated_residual(of({2, 3, 4}), of({2, 4}), of({2, 3, 4}, f16)); });
}

TEST(Refusals, Arranging) {
  expect_refused("(1, 2, 5, 4) cannot be cut into patches of 2", [] { patchify(of({1, 2, 5, 4}), 2); });
  expect_refused("patches of 0", [] { patchify(of({1, 2, 4, 4}), 0); });
  expect_refused("are no 2x3 grid", [] { unpatchify(of({1, 5, 4}), 2, 3, 2); });
  expect_refused("of 0x0 patches", [] { unpatchify(of({1, 6, 4}), 2, 3, 0); });
  expect_refused("no -2x-3 grid", [] { unpatchify(of({1, 6, 4}), -2, -3, 1); });
  expect_refused("cut into 3 chunks", [] { chunk(of({2, 7}), 3); });
  expect_refused("(6) cannot be cut", [] { chunk(of({6}), 3); });
  expect_refused("columns of bf16 do not go into a tensor of f32", [] {
    concat_columns(of({2, 3}, bf16), of({2, 3}, bf16));
  });
  expect_refused("(2, 3) and (3, 2) cannot be added", [] { add(of({2, 3}), of({3, 2})); });
  expect_refused("positions (4, 4)", [] { add_positions(of({2, 3, 4}), of({4, 4})); });
  expect_refused("mean_tokens wants (batch, tokens, d), not shape (2, 3)", [] { mean_tokens(of({2, 3})); });
  expect_refused("two dimensions, not shape (3)", [] { embedding(of({3}), Tensor::from<int64_t>({0})); });
  for (const int64_t index : {int64_t{-1}, int64_t{3}})
    expect_refused(fmt::format("index {} is outside a table of 3 rows", index), [&] {
      embedding(of({3, 2}), Tensor::from<int64_t>({0, index}));
    });
  expect_refused("even, not 7", [] { timestep_embedding(of({1}), 7); });
  expect_refused("sum_rows wants a matrix", [] { sum_rows(of({2, 3, 4})); });
  expect_refused("sum_rows works in f32 or bf16", [] { sum_rows(of({2, 3}, f16)); });
}

TEST(Refusals, Products) {
  Tensor into = of({2, 5});
  expect_refused("(2, 3) and (4, 5)", [&] { matmul(as_matrix(of({2, 3})), as_matrix(of({4, 5})), into); });
  expect_refused("f32 and bf16", [&] { matmul(as_matrix(of({2, 3})), as_matrix(of({3, 5}, bf16)), into); });
  expect_refused("does not fit shape (2, 5)", [&] {
    matmul(as_matrix(of({3, 3})), as_matrix(of({3, 5})), into);
  });
  expect_refused("bias of shape (4)", [&] {
    matmul(as_matrix(of({2, 3})), as_matrix(of({3, 5})), into, {.bias = of({4})});
  });
  expect_refused("not f16", [&] { matmul(as_matrix(of({2, 3}, f16)), as_matrix(of({3, 5}, f16)), into); });
  const auto layer = [](const Tensor& x, const Tensor& w, const Tensor& b) {
    return [=] { linear(x, w, b, Activation::none, f32); };
  };
  expect_refused("weight (5, 3) cannot take an input of shape (2, 4)", layer(of({2, 4}), of({5, 3}), {}));
  expect_refused("weight (5)", layer(of({2, 5}), of({5}), {}));
  expect_refused("bias of shape (3)", layer(of({2, 3}), of({5, 3}), of({3})));
  const PackedWeight packed(of({5, 3}), f32);
  expect_refused("a linear layer of 3 inputs got 4", [&] {
    linear(of({2, 4}), packed, {}, Activation::none, f32);
  });
  expect_refused("packed as f32 got bf16", [&] { packed.apply(as_matrix(of({2, 3}, bf16)), into, {}); });
  expect_refused("two dimensions", [] { PackedWeight(of({5}), f32); });
}

TEST(Refusals, Attention) {
  expect_refused("5 heads cannot share 6 channels", [] { linear_attention(of({1, 2, 6}), of({1, 2, 12}), 5); });
  expect_refused("0 heads", [] { linear_attention(of({1, 2, 6}), of({1, 2, 12}), 0); });
  expect_refused("kv (1, 2, 6)", [] { linear_attention(of({1, 2, 6}), of({1, 2, 6}), 1); });
  expect_refused("do not go together", [] { linear_attention(of({1, 2, 6}), of({1, 2, 12}, bf16), 1); });
  expect_refused("not f16", [] { linear_attention(of({1, 2, 6}, f16), of({1, 2, 12}, f16), 1); });
  expect_refused("4 heads cannot share qkv of shape (1, 2, 18)", [] { softmax_attention(of({1, 2, 18}), 4); });
  expect_refused("(1, 2, 17)", [] { softmax_attention(of({1, 2, 17}), 1); });
  expect_refused("not f16", [] { softmax_attention(of({1, 2, 18}, f16), 1); });
  const auto apart = [](const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads) {
    return [=] { softmax_attention(q, k, v, heads); };
  };
  expect_refused("q (1, 2, 6), k (2, 3, 6) and v (2, 3, 6) do not go together",
                 apart(of({1, 2, 6}), of({2, 3, 6}), of({2, 3, 6}), 1));
  expect_refused("v (1, 4, 6) do not", apart(of({1, 2, 6}), of({1, 3, 6}), of({1, 4, 6}), 1));
  expect_refused("k (1, 0, 6)", apart(of({1, 2, 6}), of({1, 0, 6}), of({1, 0, 6}), 1));
  expect_refused("do not go together", apart(of({1, 2, 6}), of({1, 3, 6}, bf16), of({1, 3, 6}), 1));
  expect_refused("4 heads cannot share a width of 6", apart(of({1, 2, 6}), of({1, 3, 6}), of({1, 3, 6}), 4));
  expect_refused("not f16", apart(of({1, 2, 6}), of({1, 3, 6}), of({1, 3, 6}, f16), 1));
}

TEST(Refusals, CompressTokens) {
  const auto compress = [](const Tensor& weight, const Tensor& bias, int64_t rows, int64_t columns) {
    return [=] { compress_tokens(of({1, 6, 8}), weight, bias, rows, columns); };
  };
  expect_refused("a 2x2 grid does not hold 6 tokens", compress(of({8, 1, 2, 2}), of({8}), 2, 2));
  expect_refused("a -2x-3 grid", compress(of({8, 1, 2, 2}), of({8}), -2, -3));
  expect_refused("a grid of 1x6 tokens has no square of 2x2", compress(of({8, 1, 2, 2}), of({8}), 1, 6));
  expect_refused("weight (8, 2, 2, 2)", compress(of({8, 2, 2, 2}), of({8}), 2, 3));
  expect_refused("weight (8, 1, 3, 2)", compress(of({8, 1, 3, 2}), of({8}), 2, 3));
  expect_refused("weight (4, 1, 2, 2)", compress(of({4, 1, 2, 2}), of({8}), 2, 3));
  expect_refused("bias (4) do not fit 8 channels", compress(of({8, 1, 2, 2}), of({4}), 2, 3));
  expect_refused("its filters are missing", compress({}, of({8}), 2, 3));
  expect_refused("f32 was expected", compress(of({8, 1, 2, 2}), of({8}, bf16), 2, 3));
  expect_refused("not f16", [] { compress_tokens(of({1, 6, 8}, f16), of({8, 1, 2, 2}), of({8}), 2, 3); });
}

TEST(Refusals, FocusedMap) {
  const auto map = [](const Tensor& x, const Tensor& scale, const Tensor& positions) {
    return [=] { focused_map(x, scale, positions, FocusedActivation::relu); };
  };
  expect_refused("a tensor is missing", map({}, of({1, 1, 6}), {}));
  expect_refused("scale (1, 1, 7) does not fit the channels of x (1, 2, 6)",
                 map(of({1, 2, 6}), of({1, 1, 7}), {}));
  expect_refused("scale (6)", map(of({1, 2, 6}), of({6}), {}));
  expect_refused("x (2, 6)", map(of({2, 6}), of({1, 1, 6}), {}));
  expect_refused("positions (1, 3, 6) do not fit 2 tokens of 6 channels",
                 map(of({1, 2, 6}), of({1, 1, 6}), of({1, 3, 6})));
  expect_refused("positions (1, 2, 12) do not fit", map(of({1, 2, 12}), of({1, 1, 6}), of({1, 2, 12})));
  expect_refused("f32, not bf16", map(of({1, 2, 6}), of({1, 1, 6}, bf16), {}));
  expect_refused("f32, not bf16", map(of({1, 2, 6}), of({1, 1, 6}), of({1, 2, 6}, bf16)));
  expect_refused("works in f32 or bf16, not f16", map(of({1, 2, 6}, f16), of({1, 1, 6}), {}));
}

TEST(Refusals, DepthwiseConvolution) {
  const auto conv = [](const Tensor& weight, const Tensor& bias, int64_t rows, int64_t columns) {
    return [=] { linear_attention_conv(of({1, 6, 8}), of({1, 6, 16}), weight, bias, 2, rows, columns); };
  };
  expect_refused("a 2x2 grid does not hold 6 tokens", conv(of({4, 1, 3, 3}), of({4}), 2, 2));
  expect_refused("a -2x-3 grid", conv(of({4, 1, 3, 3}), of({4}), -2, -3));
  for (const int64_t kernel : {2, 9})
    expect_refused(fmt::format("weight (4, 1, {0}, {0})", kernel),
                   conv(of({4, 1, kernel, kernel}), of({4}), 2, 3));
  expect_refused("weight (8, 1, 3, 3)", conv(of({8, 1, 3, 3}), of({8}), 2, 3));
  expect_refused("weight (4, 1, 3, 5)", conv(of({4, 1, 3, 5}), of({4}), 2, 3));
  expect_refused("weight (4)", conv(of({4}), of({4}), 2, 3));
  expect_refused("bias (3)", conv(of({4, 1, 3, 3}), of({3}), 2, 3));
  expect_refused("its filters or their bias are missing", conv({}, of({4}), 2, 3));
  expect_refused("its filters or their bias are missing", conv(of({4, 1, 3, 3}), {}, 2, 3));
  expect_refused("weight and bias are f32, not bf16", conv(of({4, 1, 3, 3}, bf16), of({4}), 2, 3));
}

}  // namespace
}  // namespace linnet::ops::test
