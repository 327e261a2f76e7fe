// 8-bit linear layers: rounding, the integer product against a plain one of the same rounded numbers, and how
// far the result lies from the product in f32.
#include "ops/int8_linear.h"

#include "ops/int8_linear_cpu.h"
#include "ops/support.h"
#include "support/processor.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16;

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

// What the kernel must give: tokens rounded as quantize_tokens says, sums exact, the rest in double.
Values formula(const Tensor& x, const Int8Matrix& weight, const Tensor& bias, Activation activation) {
  const int64_t rows = x.shape().rows(), in = weight.values.size(1), out = weight.values.size(0);
  std::vector<uint8_t> q(static_cast<size_t>(rows * in));
  std::vector<cpu::TokenScale> scales(static_cast<size_t>(rows));
  cpu::quantize_tokens(x, 0, rows, q.data(), scales.data());
  Values y;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < out; ++j) {
      const auto [scale, zero] = scales[static_cast<size_t>(r)];
      int64_t sum = 0;
      for (int64_t i = 0; i < in; ++i)
        sum += (q[static_cast<size_t>(r * in + i)] - zero) * weight.values.data<int8_t>()[j * in + i];
      const double value = static_cast<double>(scale) * static_cast<double>(weight.scale.data<float>()[j]) *
                               static_cast<double>(sum) +
                           (bias.defined() ? static_cast<double>(bias.data<float>()[j]) : 0.0);
      y.push_back(activation == Activation::gelu_tanh ? gelu(value) : value);
    }
  return y;
}

struct Sizes {
  int64_t rows, in, out;
};
// The last needs several blocks of tokens.
const std::vector<Sizes> odd_sizes{{1, 3, 9},     {3, 9, 24}, {17, 24, 3},   {65, 36, 72},
                                   {100, 130, 1}, {1, 1, 1},  {300, 8, 9000}};

TEST(Int8Linear, EqualsThePlainProductOfTheSameRoundedNumbers) {
  LINNET_NEED_INT8_PRODUCTS();
  for (const Sizes& s : odd_sizes)
    for (const DType in : {f32, bf16})
      for (const DType out : {f32, bf16})
        for (const bool with_bias : {false, true})
          for (const Activation activation : {Activation::none, Activation::gelu_tanh}) {
            const Tensor x = random({s.rows, s.in}, 1, in);
            const Int8Matrix weight = quantize(random({s.out, s.in}, 2));
            const Tensor bias = with_bias ? random({s.out}, 3) : Tensor();
            const PackedInt8Weight packed(weight);
            const auto run = [&] {
              const Values expected = formula(x, weight, bias, activation);
              const Tensor y = linear(x, packed, bias, activation, out);
              EXPECT_EQ(y.dtype(), out);
              EXPECT_LT(relative_error(y, expected), out == bf16 ? 4e-3 : 1e-6)
                  << s.rows << "x" << s.in << "->" << s.out << " bias " << with_bias;
            };
            s.out > 1000 ? run() : each_instruction_set(run);
          }
}

// Of normal numbers, 8 bits lose about a hundredth; GELU's outputs profit from the zero point.
TEST(Int8Linear, StaysCloseToTheProductInF32) {
  LINNET_NEED_INT8_PRODUCTS();
  const Tensor w = random({200, 500}, 1), bias = random({200}, 2);
  Tensor x = random({50, 500}, 3);
  for (const bool one_sided : {false, true}) {
    if (one_sided)
      for (float& v : std::span(x.mutable_data<float>(), static_cast<size_t>(x.numel())))
        v = static_cast<float>(gelu(static_cast<double>(v)));
    Tensor exact = Tensor::empty({50, 200});
    matmul(as_matrix(x), as_matrix(w).transposed(), exact, {.bias = bias});
    const Tensor y = linear(x, PackedInt8Weight(quantize(w)), bias, Activation::none, f32);
    EXPECT_LT(relative_error(y, values_of(exact)), one_sided ? 0.012 : 0.014);
  }
}

TEST(Int8Linear, GivesTheSameBytesWithAnyNumberOfThreads) {
  LINNET_NEED_INT8_PRODUCTS();
  const Tensor x = random({131, 70}, 1, bf16);
  const PackedInt8Weight packed(quantize(random({50, 70}, 2)));
  const Tensor bias = random({50}, 3);
  const auto with = [&](int count) {
    const Threads threads(count);
    return linear(x, packed, bias, Activation::gelu_tanh, bf16);
  };
  const Tensor one = with(1);
  EXPECT_TRUE(same_bytes(one, with(2)));
  EXPECT_TRUE(same_bytes(one, with(3)));
}

TEST(Int8Linear, SpoilsOnlyTheTokenThatIsNotFinite) {
  LINNET_NEED_INT8_PRODUCTS();
  const PackedInt8Weight packed(quantize(random({5, 33}, 2)));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const int64_t at : {int64_t{0}, int64_t{32}}) {
      Tensor x = random({3, 33}, 1);
      x.mutable_data<float>()[33 + at] = bad;
      const Tensor y = linear(x, packed, {}, Activation::none, f32);
      for (int64_t i = 0; i < 15; ++i) EXPECT_EQ(std::isnan(y.data<float>()[i]), i / 5 == 1) << bad << " " << i;
    }
}

TEST(Int8Linear, TakesTokensAndWeightsOfZeros) {
  LINNET_NEED_INT8_PRODUCTS();
  const Tensor bias = random({4}, 1);
  const Tensor zeros = Tensor::zeros({2, 6});
  for (const Tensor& y :
       {linear(zeros, PackedInt8Weight(quantize(random({4, 6}, 2))), bias, Activation::none, f32),
        linear(random({2, 6}, 3), PackedInt8Weight(quantize(Tensor::zeros({4, 6}))), bias, Activation::none,
               f32)})
    for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(y.data<float>()[i], bias.data<float>()[i % 4]);
}

// Sums of pairs in 16 bits would overflow.
TEST(Int8Linear, IsRefusedWhereItsSumsAreNotExact) {
  if (have_int8_products()) GTEST_SKIP() << "not run: this processor has products in 8 bits";
  EXPECT_EQ(error_of([] {
              PackedInt8Weight(quantize(random({4, 6}, 1)));
            }),
            "this processor has no exact products in 8 bits, which on x86 take VNNI: dequantize the weight");
}

TEST(Int8Matrix, KeepsEveryWeightWithinHalfAStep) {
  for (const DType dtype : {f32, bf16, DType::f16}) {
    const Tensor weight = random({7, 45}, 4, dtype, 3.0f);
    const Int8Matrix rounded = quantize(weight);
    const Tensor back = dequantize(rounded, f32);
    const Values before = values_of(weight), after = values_of(back);
    for (size_t i = 0; i < before.size(); ++i)
      EXPECT_LE(std::abs(before[i] - after[i]),
                0.5001 * static_cast<double>(rounded.scale.data<float>()[i / 45]));
    EXPECT_TRUE(same_bytes(quantize(back).values, rounded.values)) << "rounding twice changes nothing";
  }
}

TEST(Int8Matrix, RefusesWhatHasNoEightBitForm) {
  Tensor weight = random({2, 3}, 1);
  weight.mutable_data<float>()[4] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(error_of([&] { quantize(weight); }), "a weight that is not finite has no 8-bit form");
  EXPECT_EQ(error_of([] { quantize(Tensor::zeros({3})); }),
            "an 8-bit weight has two dimensions, not shape (3)");
  EXPECT_EQ(error_of([] {
              PackedInt8Weight({Tensor::zeros({2, 3}, DType::i8), Tensor::zeros({3, 1})});
            }),
            "an 8-bit weight of 2 rows has as many scales, of type f32");
}

TEST(Int8Linear, RefusesWhatDoesNotFit) {
  LINNET_NEED_INT8_PRODUCTS();
  EXPECT_EQ(error_of([] {
              PackedInt8Weight({Tensor::zeros({1, 70000}, DType::i8), Tensor::zeros({1, 1})});
            }),
            "an 8-bit linear layer has at most 65536 inputs, not 70000");
  const PackedInt8Weight packed(quantize(random({2, 3}, 1)));
  EXPECT_EQ(error_of([&] {
              linear(Tensor::zeros({2, 4}), packed, {}, Activation::none, f32);
            }),
            "a linear layer of 3 inputs got shape (2, 4)");
  EXPECT_EQ(error_of([&] {
              linear(Tensor::zeros({2, 3}), packed, Tensor::zeros({3}), Activation::none, f32);
            }),
            "a bias of 2 f32 is wanted, not one of shape (3)");
}

}  // namespace
}  // namespace linnet::ops::test
