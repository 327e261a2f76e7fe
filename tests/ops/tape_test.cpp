// The tape under operations: reshaped gradients, shared gradients, checkpoints, and what stays in memory.
#include "core/memory.h"
#include "ops/activation.h"
#include "ops/arrange.h"
#include "ops/cast.h"
#include "ops/layer_norm_modulate.h"
#include "ops/linear.h"
#include "ops/linear_attention.h"
#include "ops/softmax_attention.h"
#include "ops/support.h"
#include "support/processor.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32;

struct Block {
  DType dtype = f32;  // of the products
  Tensor first = random({12, 8}, 1), first_bias = random({12}, 2), second = random({8, 12}, 3);

  std::vector<Tensor> parameters() const { return {first, first_bias, second}; }
  void want_gradients() {
    for (Tensor* p : {&first, &first_bias, &second}) p->set_requires_grad(true);
  }
  Tensor operator()(const Tensor& x) const {
    const Tensor hidden = linear(cast(x, dtype), first, first_bias, Activation::gelu_tanh, dtype);
    return add(x, linear(hidden, second, {}, Activation::none, f32));
  }
};

std::vector<Tensor> gradients_of_two_blocks(bool checkpointed, DType dtype) {
  Block a{dtype}, b{dtype};
  a.want_gradients();
  b.want_gradients();
  Tensor x = random({2, 5, 8}, 4);
  x.set_requires_grad(true);
  const auto through = [&](const Block& block, const Tensor& in) {
    return checkpointed
               ? checkpoint([&block](const std::vector<Tensor>& inputs) { return block(inputs[0]); }, {in})
               : block(in);
  };
  Tape tape;
  tape.backward(through(b, through(a, x)), random({2, 5, 8}, 5));
  std::vector<Tensor> result{x.grad()};
  for (const Block* block : {&a, &b})
    for (const Tensor& p : block->parameters()) result.push_back(p.grad());
  return result;
}

void expect_same_gradients(DType dtype, double accepted) {
  const auto plain = gradients_of_two_blocks(false, dtype), again = gradients_of_two_blocks(true, dtype);
  ASSERT_EQ(plain.size(), again.size());
  for (size_t i = 0; i < plain.size(); ++i)
    EXPECT_LT(relative_error(again[i], values_of(plain[i])), accepted) << i;
}

TEST(Checkpoint, GivesTheSameGradients) { expect_same_gradients(f32, 1e-6); }

// What the first pass fuses, the second rounds in between.
TEST(Checkpoint, GivesTheSameGradientsInBf16ButForRounding) {
  LINNET_NEED_BF16_PRODUCTS();
  expect_same_gradients(DType::bf16, tolerance(DType::bf16));
}

TEST(Checkpoint, KeepsOnlyItsInputs) {
  Block block;
  block.want_gradients();
  Tensor x = random({4, 256, 8}, 4);
  x.set_requires_grad(true);
  const auto kept = [&](bool checkpointed) {
    Tape tape;
    const size_t before = memory_stats().in_use;
    const Tensor y =
        checkpointed ? checkpoint([&](const std::vector<Tensor>& in) { return block(in[0]); }, {x}) : block(x);
    return memory_stats().in_use - before;
  };
  EXPECT_LE(kept(true), x.bytes() * 5 / 4);
  EXPECT_GT(kept(false), 3 * x.bytes());
}

TEST(Checkpoint, OfAFrozenBlockPassesNothingBack) {
  const Block frozen;
  Tensor x = random({1, 5, 8}, 4), w = random({8, 8}, 5);
  w.set_requires_grad(true);
  Tape tape;
  const Tensor y = checkpoint([&](const std::vector<Tensor>& in) { return frozen(in[0]); }, {x});
  tape.backward(linear(y, w, {}, Activation::none, f32));
  EXPECT_TRUE(w.grad().defined());
  EXPECT_FALSE(x.grad().defined());
}

// A reshape shares its source's slot, so the gradient arrives in the reshape's shape.
TEST(Tape, OperationsAcceptGradientsOfReshapedResults) {
  const Tensor q = random({2, 6, 8}, 1), kv = random({2, 6, 16}, 2), w = random({3, 8}, 3),
               g = random({12, 3}, 4);
  const Tensor filter = random({4, 1, 3, 3}, 5), bias = random({4}, 6);
  const auto mixed = [](const Inputs& in) {
    return linear_attention_conv(in[0], in[1], in[2], in[3], 2, 2, 3);
  };
  const auto reshaped = [&](const Inputs& in) {
    return linear(mixed(in).reshape({12, 8}), w, {}, Activation::none, f32);
  };
  const auto straight = [&](const Inputs& in) { return linear(mixed(in), w, {}, Activation::none, f32); };
  const Result a = run(reshaped, {q, kv, filter, bias}, g);
  const Result b = run(straight, {q, kv, filter, bias}, g.reshape({2, 6, 3}));
  for (size_t i = 0; i < 4; ++i)
    EXPECT_LT(relative_error(a.gradients[i], values_of(b.gradients[i])), 1e-6) << i;
}

// add() gives both inputs the same gradient memory; a product that adds to one in place must not touch the
// other's.
TEST(Tape, AddingToAWeightsGradientLeavesOthersAlone) {
  Tensor w = random({4, 4}, 1), other = random({4, 4}, 2);
  w.set_requires_grad(true);
  other.set_requires_grad(true);
  const Tensor x = random({4, 4}, 3), g = random({4, 4}, 4);
  const Values before = values_of(g);
  Tape tape;
  const Tensor product = linear(x, w, {}, Activation::none, f32);  // recorded first, so its step comes last
  const Tensor sum = add(w, other);
  tape.backward(add(product, sum), g);
  EXPECT_EQ(values_of(other.grad()), before);
  EXPECT_EQ(values_of(g), before);
}

TEST(Tape, AGradientTakenBeforeTheNextStepStaysAsItWas) {
  Tensor w = random({4, 4}, 1);
  w.set_requires_grad(true);
  const Tensor x = random({3, 4}, 3);
  const auto step = [&] {
    Tape tape;
    tape.backward(linear(x, w, {}, Activation::none, f32));
  };
  step();
  const Tensor first = w.grad();
  const Values before = values_of(first);
  step();
  EXPECT_EQ(values_of(first), before);
}

TEST(Tape, RefusesASeedOfAnotherSize) {
  Tensor x = random({3, 4}, 1);
  x.set_requires_grad(true);
  Tape tape;
  const Tensor y = silu(x, f32);
  EXPECT_NE(error_of([&] {
              tape.backward(y, random({3, 3}, 2));
            }).find("a gradient of shape (3, 3)"),
            std::string::npos);
}

// In bf16 if it can be, as models are trained.
Tensor chain(const Tensor& x, const Tensor& w, const Tensor& modulation) {
  const DType dtype = linnet::test::product_dtypes().back();
  const Tensor normed = layer_norm_modulate(x, modulation, modulation, 1e-6f, dtype);
  const Tensor qkv = linear(normed, w, {}, Activation::gelu_tanh, dtype);
  return cast(softmax_attention(silu(qkv, dtype), 2), f32);
}

TEST(Memory, WithoutATapeOnlyLiveTensorsRemain) {
  Tensor x = random({2, 300, 16}, 1), w = random({48, 16}, 2), modulation = random({2, 16}, 3);
  w.set_requires_grad(true);
  chain(x, w, modulation);  // what the library keeps for good, it keeps from the first call on
  const size_t before = memory_stats().in_use;
  {
    const Tensor y = chain(x, w, modulation);
    EXPECT_LE(memory_stats().in_use - before, y.bytes() * 5 / 4 + 64);
  }
  EXPECT_EQ(memory_stats().in_use, before);
}

TEST(Memory, BackwardFreesWhatTheTapeKept) {
  Tensor x = random({2, 300, 16}, 1), w = random({48, 16}, 2), modulation = random({2, 16}, 3);
  w.set_requires_grad(true);
  const size_t before = memory_stats().in_use;
  {
    Tape tape;
    tape.backward(chain(x, w, modulation));
    w.clear_grad();
    EXPECT_EQ(memory_stats().in_use, before);
  }
}

}  // namespace
}  // namespace linnet::ops::test
