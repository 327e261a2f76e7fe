// The tape, on the smallest operations there are: products and sums of two tensors.
#include "core/tape.h"

#include <gtest/gtest.h>

#include <thread>

namespace linnet {
namespace {

template <class F>
Tensor elementwise(const Tensor& a, const Tensor& b, F f) {
  Tensor result = Tensor::empty(a.shape());
  for (int64_t i = 0; i < a.numel(); ++i)
    result.mutable_data<float>()[i] = f(a.data<float>()[i], b.data<float>()[i]);
  return result;
}

Tensor multiply(const Tensor& a, const Tensor& b) {
  Tensor result = elementwise(a, b, std::multiplies<>());
  if (wants_grad(a, b))
    record_backward(result, [a, b](const Tensor& gradient) {
      NoGrad no_grad;
      accumulate_grad(a.grad_slot(), multiply(gradient, b));
      accumulate_grad(b.grad_slot(), multiply(gradient, a));
    });
  return result;
}

// Both inputs get the same gradient tensor: what gathers in one must not change the other.
Tensor add(const Tensor& a, const Tensor& b) {
  Tensor result = elementwise(a, b, std::plus<>());
  if (wants_grad(a, b))
    record_backward(result, [a, b](const Tensor& gradient) {
      accumulate_grad(a.grad_slot(), gradient);
      accumulate_grad(b.grad_slot(), gradient);
    });
  return result;
}

Tensor leaf(const std::vector<float>& values) {
  Tensor result = Tensor::from<float>(values);
  result.set_requires_grad(true);
  return result;
}

std::vector<float> gradient_of(const Tensor& tensor) {
  const Tensor gradient = tensor.grad();
  if (!gradient.defined()) return {};
  const auto values = gradient.values<float>();
  return {values.begin(), values.end()};
}

using Values = std::vector<float>;

TEST(Tape, GivesTheGradientOfAProduct) {
  const Tensor x = leaf({2, 3}), y = leaf({5, 7});
  Tape tape;
  tape.backward(multiply(x, y));
  EXPECT_EQ(gradient_of(x), (Values{5, 7}));
  EXPECT_EQ(gradient_of(y), (Values{2, 3}));
}

TEST(Tape, StartsFromTheGivenSeed) {
  const Tensor x = leaf({2, 3}), y = leaf({5, 7});
  Tape tape;
  tape.backward(multiply(x, y), Tensor::from<float>({10, 0}));
  EXPECT_EQ(gradient_of(x), (Values{50, 0}));
}

TEST(Tape, AddsUpWhenATensorIsUsedManyTimes) {
  const Tensor x = leaf({2, 3});
  Tape tape;
  tape.backward(add(multiply(multiply(x, x), x), x));  // x^3 + x
  EXPECT_EQ(gradient_of(x), (Values{13, 28}));
}

TEST(Tape, AddsToWhatLeavesHoldUntilCleared) {
  Tensor x = leaf({2});
  const Tensor y = Tensor::from<float>({5});
  for (int pass = 0; pass < 3; ++pass) {
    Tape tape;
    tape.backward(multiply(x, y));
  }
  EXPECT_EQ(gradient_of(x), (Values{15}));
  x.clear_grad();
  EXPECT_FALSE(x.grad().defined());
}

TEST(Tape, KeepsSharedGradientsApart) {
  const Tensor x = leaf({2}), y = leaf({3});
  Tape tape;
  const Tensor sum = add(x, y);
  tape.backward(add(sum, x));  // 2x + y
  EXPECT_EQ(gradient_of(x), (Values{2}));
  EXPECT_EQ(gradient_of(y), (Values{1}));
}

TEST(Tape, LeavesTheSeedAsItWas) {
  const Tensor x = leaf({2}), seed = Tensor::from<float>({1});
  for (int pass = 0; pass < 2; ++pass) {
    Tape tape;
    tape.backward(add(x, x), seed);
  }
  EXPECT_EQ(gradient_of(x), (Values{4}));
  EXPECT_EQ(seed.item(), 1.0f);
}

TEST(Tape, SkipsWhatTheOutputDoesNotDependOn) {
  const Tensor x = leaf({2}), y = leaf({3});
  Tape tape;
  const Tensor unused = multiply(y, y);
  tape.backward(multiply(x, x));
  EXPECT_EQ(gradient_of(x), (Values{4}));
  EXPECT_FALSE(y.grad().defined());
}

TEST(Tape, GathersInTheShapeOfTheLeaf) {
  const Tensor x = leaf({1, 2, 3, 4}).reshape({2, 2});
  Tape tape;
  tape.backward(multiply(x.reshape({4}), x.reshape({4})));
  EXPECT_EQ(x.grad().shape(), (Shape{2, 2}));
  EXPECT_EQ(gradient_of(x), (Values{2, 4, 6, 8}));
}

TEST(Tape, GathersBFloat16AsFloat) {
  const Tensor x = leaf({0});
  for (int i = 0; i < 300; ++i) accumulate_grad(x.grad_slot(), Tensor::from<float>({1}).to(DType::bf16));
  EXPECT_EQ(gradient_of(x), (Values{300}));  // bf16 alone would stop at 256
}

TEST(Tape, RecordsNothingWithoutATapeOrAWantedGradient) {
  const Tensor x = leaf({2}), constant = Tensor::from<float>({3});
  EXPECT_FALSE(multiply(x, x).requires_grad());
  Tape tape;
  EXPECT_FALSE(multiply(constant, constant).requires_grad());
  {
    NoGrad no_grad;
    EXPECT_FALSE(multiply(x, x).requires_grad());
  }
  EXPECT_TRUE(multiply(x, x).requires_grad());
}

TEST(Tape, RefusesAnOutputThatDependsOnNothing) {
  Tape tape;
  EXPECT_THROW(tape.backward(Tensor::from<float>({1})), Error);
}

TEST(Tape, NestsAndComesBack) {
  const Tensor x = leaf({2});
  Tape outer;
  {
    Tape inner;
    EXPECT_EQ(Tape::active(), &inner);
    inner.backward(multiply(x, x));
  }
  EXPECT_EQ(Tape::active(), &outer);
  EXPECT_EQ(gradient_of(x), (Values{4}));
}

TEST(Tape, BelongsToItsThread) {
  Tape tape;
  Tape* seen = &tape;
  std::thread([&] { seen = Tape::active(); }).join();
  EXPECT_EQ(seen, nullptr);
}

TEST(Tape, FreesWhatItKeptAsItIsPlayed) {
  const Tensor x = leaf({2});
  const auto kept = std::make_shared<int>();
  Tensor result = multiply(x, x);
  {
    Tape tape;
    record_backward(result, [kept](const Tensor&) {});
    EXPECT_EQ(kept.use_count(), 2);
    tape.backward(result);
    EXPECT_EQ(kept.use_count(), 1);
  }
}

TEST(Tape, IsLeftByAnExceptionAsItWas) {
  const Tensor x = leaf({2});
  try {
    Tape tape;
    Tensor result = multiply(x, x);
    record_backward(result, [](const Tensor&) { fail("stop"); });
    tape.backward(result);
    FAIL();
  } catch (const Error&) {
  }
  EXPECT_EQ(Tape::active(), nullptr);
}

TEST(Checkpoint, GivesTheSameValueAndGradients) {
  const Tensor x = leaf({2, 3}), weight = leaf({5, 7});
  int runs = 0;
  const auto block = [&](const std::vector<Tensor>& inputs) {
    ++runs;
    return multiply(multiply(inputs[0], inputs[0]), weight);  // w x^2
  };
  Tape tape;
  const Tensor output = checkpoint(block, {x});
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(output.data<float>()[1], 63.0f);
  tape.backward(multiply(output, x));  // w x^3
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(gradient_of(x), (Values{60, 189}));
  EXPECT_EQ(gradient_of(weight), (Values{8, 27}));
}

TEST(Checkpoint, NestsAndMeetsInputsThatWantNoGradient) {
  const Tensor x = leaf({2}), constant = Tensor::from<float>({3});
  const auto square = [](const std::vector<Tensor>& in) { return multiply(in[0], in[0]); };
  const auto block = [&](const std::vector<Tensor>& in) {
    return multiply(checkpoint(square, {in[0]}), in[1]);
  };
  Tape tape;
  tape.backward(checkpoint(block, {x, constant}));  // 3 x^2
  EXPECT_EQ(gradient_of(x), (Values{12}));
  EXPECT_FALSE(constant.requires_grad());
}

TEST(Checkpoint, RunsOnceWithoutATape) {
  const Tensor x = leaf({2});
  int runs = 0;
  const Tensor y = checkpoint(
      [&](const std::vector<Tensor>& in) {
        ++runs;
        return multiply(in[0], in[0]);
      },
      {x});
  EXPECT_EQ(runs, 1);
  EXPECT_FALSE(y.requires_grad());
}

}  // namespace
}  // namespace linnet
