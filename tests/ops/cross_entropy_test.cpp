// Cross-entropy against its formula, in both directions, and where exponents leave the range of f32.
#include "ops/cross_entropy.h"

#include "ops/operation_table.h"

namespace linnet::ops::test {
namespace {

Values cross_entropy_formula(const std::vector<Values>& in, int64_t classes) {
  const size_t n = in[1].size(), width = static_cast<size_t>(classes);
  double total = 0;
  for (size_t row = 0; row < n; ++row) {
    double sum = 0;
    for (size_t i = 0; i < width; ++i) sum += std::exp(in[0][row * width + i]);
    total += std::log(sum) - in[0][row * width + static_cast<size_t>(std::lround(in[1][row]))];
  }
  return {total / static_cast<double>(n)};
}

TEST(CrossEntropy, FollowsItsFormula) {
  for (const int64_t classes : {1, 2, 5, 64, 67})
    for (const int64_t n : {1, 3}) {
      Tensor labels = Tensor::empty({n}, DType::i64);
      for (int64_t i = 0; i < n; ++i) labels.mutable_data<int64_t>()[i] = (i * 7 + 3) % classes;
      check_row({fmt::format("{} of {} classes", n, classes),
                 {random({n, classes}, 5, DType::f32, 3.0f), labels},
                 [](const Inputs& in) { return cross_entropy(in[0], in[1]); },
                 [classes](const std::vector<Values>& in) { return cross_entropy_formula(in, classes); }});
    }
}

TEST(CrossEntropy, StaysFiniteFarOut) {
  const Tensor logits = Tensor::from<float>(std::vector<float>{1e4f, -1e4f, 0.0f}).reshape({1, 3});
  EXPECT_FLOAT_EQ(cross_entropy(logits, Tensor::from<int64_t>({0})).item(), 0.0f);
  EXPECT_FLOAT_EQ(cross_entropy(logits, Tensor::from<int64_t>({1})).item(), 2e4f);
}

TEST(CrossEntropy, EqualLogitsCostTheLogarithmOfTheClasses) {
  EXPECT_FLOAT_EQ(cross_entropy(Tensor::full({2, 8}, 3.0f), Tensor::from<int64_t>({0, 7})).item(),
                  std::log(8.0f));
}

TEST(CrossEntropy, RefusesWhatDoesNotGoTogether) {
  const Tensor logits = Tensor::zeros({2, 3});
  EXPECT_EQ(error_of([&] {
              cross_entropy(logits, Tensor::from<int64_t>({0, 3}));
            }),
            "cross_entropy: label 3 is outside 3 classes");
  EXPECT_EQ(error_of([&] {
              cross_entropy(logits, Tensor::from<int64_t>({-1, 0}));
            }),
            "cross_entropy: label -1 is outside 3 classes");
  EXPECT_EQ(error_of([&] { cross_entropy(logits, Tensor::from<int64_t>({0})); }),
            "cross_entropy: logits (2, 3) and labels (1) do not go together");
}

}  // namespace
}  // namespace linnet::ops::test
