// Matrix products and linear layers: every mix of types, strides and fused steps, against a plain product.
#include "ops/linear.h"

#include <cstdlib>
#include <thread>

#include "ops/activation.h"
#include "ops/operation_table.h"
#include "support/processor.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16;

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

// act(x·wᵀ + bias)
Values linear_formula(const Values& x, const Values& w, const Values& bias, size_t rows, size_t in, size_t out,
                      Activation activation) {
  Values y(rows * out);
  for (size_t r = 0; r < rows; ++r)
    for (size_t j = 0; j < out; ++j) {
      double sum = bias.empty() ? 0.0 : bias[j];
      for (size_t i = 0; i < in; ++i) sum += x[r * in + i] * w[j * in + i];
      y[r * out + j] = activation == Activation::gelu_tanh ? gelu(sum) : sum;
    }
  return y;
}

struct Sizes {
  int64_t rows, in, out;
};

const std::vector<Sizes> odd_sizes{{1, 3, 9},     {3, 9, 24}, {17, 24, 3}, {65, 36, 72},
                                   {100, 130, 1}, {5, 1, 7},  {1, 1, 1}};

// What a type mix must reach: the coarsest type taking part decides.
double accepted(DType a, DType b) { return std::max(tolerance(a), tolerance(b)); }

TEST(Matmul, MultipliesTransposedViews) {
  for (const Sizes& s : odd_sizes)
    for (const DType dtype : linnet::test::product_dtypes())
      for (const DType out : {f32, bf16})
        for (const bool left : {false, true})
          for (const bool right : {false, true}) {
            const Tensor a = random(left ? Shape{s.in, s.rows} : Shape{s.rows, s.in}, 1, dtype);
            const Tensor b = random(right ? Shape{s.out, s.in} : Shape{s.in, s.out}, 2, dtype);
            Values expected(static_cast<size_t>(s.rows * s.out));
            const Values av = values_of(a), bv = values_of(b);
            for (int64_t r = 0; r < s.rows; ++r)
              for (int64_t j = 0; j < s.out; ++j)
                for (int64_t i = 0; i < s.in; ++i)
                  expected[static_cast<size_t>(r * s.out + j)] +=
                      av[static_cast<size_t>(left ? i * s.rows + r : r * s.in + i)] *
                      bv[static_cast<size_t>(right ? j * s.in + i : i * s.out + j)];
            const MatrixView x = left ? as_matrix(a).transposed() : as_matrix(a);
            const MatrixView y = right ? as_matrix(b).transposed() : as_matrix(b);
            Tensor into = Tensor::empty({s.rows, s.out}, out);
            matmul(x, y, into);
            EXPECT_LT(relative_error(into, expected), accepted(f32, out))
                << s.rows << " " << s.in << " " << s.out;
            matmul(x, y, into, {.accumulate = true});
            for (double& v : expected) v *= 2;
            EXPECT_LT(relative_error(into, expected), accepted(f32, out)) << "accumulated";
          }
}

// A primitive that one thread made multiplies on others, one after the other and at once.
TEST(Matmul, MultipliesOnAnyThread) {
  for (const DType dtype : linnet::test::product_dtypes()) {
    const Tensor x = random({192, 768}, 1, dtype);
    const auto gram = [&] {
      Tensor into = Tensor::empty({192, 192});
      matmul(as_matrix(x), as_matrix(x).transposed(), into);
      return into;
    };
    Tensor first, second;
    std::thread([&] { first = gram(); }).join();
    std::thread([&] { second = gram(); }).join();
    EXPECT_LT(relative_error(second, values_of(first)), tolerance(f32));
    const Threads threads(2);
    std::vector<Tensor> products(16);
    parallel_for(16, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) products[static_cast<size_t>(i)] = gram();
    });
    for (const Tensor& product : products) EXPECT_LT(relative_error(product, values_of(first)), tolerance(f32));
  }
}

TEST(Linear, FollowsItsFormula) {
  for (const Sizes& s : odd_sizes)
    for (const DType x : linnet::test::product_dtypes())
      for (const DType w : {f32, bf16})
        for (const DType out : {f32, bf16})
          for (const bool with_bias : {false, true})
            for (const Activation activation : {Activation::none, Activation::gelu_tanh}) {
              Row row{
                  fmt::format("linear {}x{}->{} {} {} to {} bias {} activation {}", s.rows, s.in, s.out,
                              name_of(x), name_of(w), name_of(out), with_bias, static_cast<int>(activation)),
                  {random({1, s.rows, s.in}, 1, x), random({s.out, s.in}, 2, w)},
                  {},
                  {}};
              if (x == bf16) row.inputs[1] = row.inputs[1].to(bf16).to(w);  // what the product sees
              if (with_bias) row.inputs.push_back(random({s.out}, 3));
              row.operation = [=](const Inputs& in) {
                return linear(in[0], in[1], with_bias ? in[2] : Tensor(), activation, out);
              };
              row.formula = [=](const std::vector<Values>& in) {
                return linear_formula(in[0], in[1], with_bias ? in[2] : Values(), static_cast<size_t>(s.rows),
                                      static_cast<size_t>(s.in), static_cast<size_t>(s.out), activation);
              };
              // Without a tape, the activation is fused into the product.
              const Values expected = row.formula([&] {
                std::vector<Values> in;
                for (const Tensor& tensor : row.inputs) in.push_back(values_of(tensor));
                return in;
              }());
              EXPECT_LT(relative_error(row.operation(row.inputs), expected), accepted(x, out)) << row.name;
              check_row(row);
            }
}

TEST(Linear, TakesWeightsAndBiasesOfHalfPrecisionFiles) {
  const Tensor x = random({7, 9}, 1), w = random({5, 9}, 2).to(DType::f16), b = random({5}, 3).to(DType::f16);
  const Values expected = linear_formula(values_of(x), values_of(w), values_of(b), 7, 9, 5, Activation::none);
  EXPECT_LT(relative_error(linear(x, w, b, Activation::none, f32), expected), 1e-4);
  EXPECT_LT(relative_error(linear(x, PackedWeight(w, f32), b, Activation::none, f32), expected), 1e-4);
}

TEST(Linear, GathersAWeightsGradientOverSeveralUses) {
  const Tensor a = random({6, 5}, 1), b = random({3, 5}, 2), g = random({6, 4}, 3), h = random({3, 4}, 4);
  Tensor w = random({4, 5}, 5);
  w.set_requires_grad(true);
  for (const auto& [x, gradient] : {std::pair{a, g}, std::pair{b, h}}) {
    Tape tape;
    tape.backward(linear(x, w, {}, Activation::none, f32), gradient);
  }
  Values expected(20);
  const auto add_share = [&](const Tensor& x, const Tensor& gradient) {
    for (int64_t r = 0; r < x.size(0); ++r)
      for (int64_t j = 0; j < 4; ++j)
        for (int64_t i = 0; i < 5; ++i)
          expected[static_cast<size_t>(j * 5 + i)] += static_cast<double>(x.data<float>()[r * 5 + i]) *
                                                      static_cast<double>(gradient.data<float>()[r * 4 + j]);
  };
  add_share(a, g);
  add_share(b, h);
  EXPECT_LT(relative_error(w.grad(), expected), 1e-5);
}

TEST(PackedWeight, GivesTheSameForEveryNumberOfRows) {
  for (const DType dtype : linnet::test::product_dtypes())
    for (const DType out : {f32, bf16})
      for (const auto& [in, features] : {std::pair{9, 24}, std::pair{130, 72}, std::pair{64, 64}}) {
        const Tensor weight = random({features, in}, 1, dtype), bias = random({features}, 2);
        const PackedWeight packed(weight, dtype);
        EXPECT_EQ(packed.in_features(), in);
        EXPECT_EQ(packed.out_features(), features);
        for (const int64_t rows : {17, 1, 3, 65, 1025, 17})
          for (const Activation activation : {Activation::none, Activation::gelu_tanh})
            for (const bool with_bias : {false, true}) {
              const Tensor x = random({rows, in}, 3, dtype);
              const Values expected =
                  linear_formula(values_of(x), values_of(weight), with_bias ? values_of(bias) : Values(),
                                 static_cast<size_t>(rows), static_cast<size_t>(in),
                                 static_cast<size_t>(features), activation);
              const Tensor y = linear(x, packed, with_bias ? bias : Tensor(), activation, out);
              EXPECT_EQ(y.shape(), (Shape{rows, features}));
              EXPECT_LT(relative_error(y, expected), accepted(f32, out)) << rows << " rows " << name_of(dtype);
            }
      }
}

TEST(PackedWeight, AddsToWhatIsThere) {
  const Tensor weight = random({7, 9}, 1), x = random({5, 9}, 2);
  const PackedWeight packed(weight, f32);
  Tensor into = random({5, 7}, 3);
  Values expected = linear_formula(values_of(x), values_of(weight), {}, 5, 9, 7, Activation::none);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += values_of(into)[i];
  packed.apply(as_matrix(x), into, {.accumulate = true});
  EXPECT_LT(relative_error(into, expected), 1e-5);
}

TEST(PackedWeight, KeepsAFewProductsForManyNumbersOfRows) {
  const Tensor weight = random({7, 9}, 1);
  const PackedWeight packed(weight, f32);
  for (int64_t rows = 1; rows <= 150; ++rows) {
    const Tensor x = random({rows, 9}, 2);
    const Values expected =
        linear_formula(values_of(x), values_of(weight), {}, static_cast<size_t>(rows), 9, 7, Activation::none);
    EXPECT_LT(relative_error(linear(x, packed, {}, Activation::none, f32), expected), 1e-5) << rows;
    EXPECT_LE(packed.prepared(), 64u);
  }
}

// Exits with 0 if bf16 is accepted where it can be multiplied and refused, with its reason, where it cannot.
[[noreturn]] void multiply_bf16_without_avx512() {
  setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
  const std::string choice = error_of([] { product_dtype_from_name("bf16"); });
  const std::string product = error_of([] {
    const Tensor x = Tensor::full({2, 3}, 1.0f).to(bf16);
    Tensor into = Tensor::empty({2, 2});
    matmul(as_matrix(x), as_matrix(x).transposed(), into);
  });
  fmt::print(stderr, "{}; {}\n", choice, product);
  const bool accepted = choice == "no error" && product == "no error";
  const bool refused = choice.find("no products in bf16") != std::string::npos &&
                       product.starts_with("oneDNN cannot do on this processor");
  std::_Exit(accepted || refused ? 0 : 1);
}

// oneDNN looks at the processor once, so this is tried in a process of its own.
TEST(ProductDtype, Bf16IsRefusedWhereItCannotBeMultiplied) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(multiply_bf16_without_avx512(), testing::ExitedWithCode(0), "");
}

TEST(MatmulEngine, SaysWhatItIs) {
  EXPECT_NE(matmul_engine_name().find("oneDNN"), std::string::npos);
  EXPECT_TRUE(fastest_product_dtype() == f32 || fastest_product_dtype() == bf16);
}

}  // namespace
}  // namespace linnet::ops::test
