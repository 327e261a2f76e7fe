// The operations that work element by element or row by row, against their formulas, in both directions.
#include "ops/activation.h"
#include "ops/arrange.h"
#include "ops/cast.h"
#include "ops/gated_residual.h"
#include "ops/layer_norm_modulate.h"
#include "ops/operation_table.h"
#include "ops/reduce.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16;

size_t at(int64_t i) { return static_cast<size_t>(i); }

Values each(const Values& x, double (*f)(double)) {
  Values y;
  for (const double v : x) y.push_back(f(v));
  return y;
}

double silu_formula(double x) { return x / (1 + std::exp(-x)); }
double gelu_formula(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

Values layer_norm_formula(const std::vector<Values>& in, const Shape& s, double epsilon) {
  Values y(in[0].size());
  const int64_t n = s[2];
  for (int64_t row = 0; row < s[0] * s[1]; ++row) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; ++i) mean += in[0][at(row * n + i)] / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i)
      variance += std::pow(in[0][at(row * n + i)] - mean, 2) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) {
      const size_t channel = at(row / s[1] * n + i);
      const double hat = (in[0][at(row * n + i)] - mean) / std::sqrt(variance + epsilon);
      y[at(row * n + i)] = hat * (1 + in[2][channel]) + in[1][channel];
    }
  }
  return y;
}

TEST(Elementwise, ActivationsFollowTheirFormulas) {
  for (const DType in : {f32, bf16})
    for (const int64_t n : {1, 3, 15, 16, 17, 130}) {
      for (const DType out : {f32, bf16})
        check_row({fmt::format("silu {} to {}, {}", name_of(in), name_of(out), n),
                   {random({1, n}, 1, in, 2.0f)},
                   [out](const Inputs& x) { return silu(x[0], out); },
                   [](const std::vector<Values>& x) { return each(x[0], silu_formula); }});
      check_row({fmt::format("gelu {} {}", name_of(in), n),
                 {random({1, n}, 1, in, 2.0f)},
                 [](const Inputs& x) { return gelu_tanh(x[0]); },
                 [](const std::vector<Values>& x) { return each(x[0], gelu_formula); }});
    }
}

TEST(Elementwise, ActivationsStayFiniteFarOut) {
  const Tensor x = Tensor::from<float>({-3e38f, -1e20f, -1e13f, -1e6f, -1e4f, -200.0f, -90.0f, 0.0f, 90.0f,
                                        200.0f, 1e4f, 1e6f, 1e13f, 1e20f, 3e38f});
  const Tensor g = Tensor::full(x.shape(), 1.0f);
  each_instruction_set([&] {
    for (const auto& f : {Operation([](const Inputs& in) { return silu(in[0], f32); }),
                          Operation([](const Inputs& in) { return gelu_tanh(in[0]); })}) {
      const Result result = run(f, {x}, g);
      for (int64_t i = 0; i < x.numel(); ++i) {
        const double v = static_cast<double>(x.data<float>()[i]);
        EXPECT_NEAR(static_cast<double>(result.output.data<float>()[i]), std::max(v, 0.0),
                    1e-4 + 1e-6 * std::fabs(v))
            << v;
        EXPECT_NEAR(static_cast<double>(result.gradients[0].data<float>()[i]),
                    v > 0   ? 1.0
                    : v < 0 ? 0.0
                            : 0.5,
                    1e-4)
            << v;
      }
    }
  });
}

TEST(Elementwise, CastRoundsToNearestEvenAndHandsTheGradientOn) {
  const Tensor x = Tensor::from<float>({1.0f, 1.00390625f, 1.01171875f, -3.14159f, 65504.0f, 3.3e38f, 1e-40f,
                                        std::numeric_limits<float>::infinity(), std::nanf(""), -0.0f, 7.0f,
                                        8.0f, 9.0f, 10.0f, 11.0f, 12.0f, 1.0039063f, 1.0039062f, -1.00390625f});
  each_instruction_set([&] {
    EXPECT_TRUE(same_bytes(cast(x, bf16), x.to(bf16)));
    EXPECT_TRUE(same_bytes(cast(x.to(bf16), f32), x.to(bf16).to(f32)));
  });
  for (const auto& [from, to] :
       {std::pair{f32, bf16}, std::pair{bf16, f32}, std::pair{f32, f32}, std::pair{f32, DType::f16}})
    check_row({fmt::format("cast {} to {}", name_of(from), name_of(to)),
               {random({5, 7}, 1, from)},
               [to = to](const Inputs& in) { return cast(cast(in[0], to), bf16); },
               [](const std::vector<Values>& in) { return in[0]; }});
}

TEST(Elementwise, LayerNormModulateFollowsItsFormula) {
  uint64_t seed = 1;
  for (const Shape& s : {Shape{1, 1, 3}, Shape{2, 3, 9}, Shape{5, 17, 24}, Shape{2, 65, 36}, Shape{1, 300, 72},
                         Shape{2, 5, 130}})
    for (const DType in : {f32, bf16})
      for (const DType out : {f32, bf16})
        check_row({fmt::format("layer_norm_modulate {} {} to {}", to_string(s), name_of(in), name_of(out)),
                   {random(s, ++seed, in), random({s[0], s[2]}, ++seed), random({s[0], s[2]}, ++seed)},
                   [out](const Inputs& x) { return layer_norm_modulate(x[0], x[1], x[2], 1e-6f, out); },
                   [s](const std::vector<Values>& x) { return layer_norm_formula(x, s, 1e-6); }});
}

// Rows around 10,000 that vary by 0.1 only: Σx² − (Σx)² would have no digit left, and even a mean in f32 is off
// by a hundredth of the deviation.
TEST(Elementwise, LayerNormKeepsItsDigitsOnALargeMean) {
  const Shape s{2, 5, 96};
  Tensor x = random(s, 5, f32, 0.1f);
  for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data<float>()[i] += 1e4f;
  const Row row{"large mean",
                {x, random({2, 96}, 6), random({2, 96}, 7)},
                [](const Inputs& in) { return layer_norm_modulate(in[0], in[1], in[2], 1e-6f, f32); },
                [s](const std::vector<Values>& in) { return layer_norm_formula(in, s, 1e-6); }};
  check_row(row);
}

TEST(Elementwise, LayerNormOfARowOfOneValueIsTheShift) {
  const Tensor x = Tensor::full({1, 4, 24}, 1e4f), shift = random({1, 24}, 1), scale = random({1, 24}, 2);
  each_instruction_set([&] {
    const Tensor y = layer_norm_modulate(x, shift, scale, 1e-6f, f32);
    for (int64_t t = 0; t < 4; ++t) EXPECT_TRUE(same_bytes(y.reshape({4, 24}).rows(t, t + 1), shift));
  });
}

TEST(Elementwise, GatedResidualFollowsItsFormula) {
  for (const Shape& s : {Shape{1, 1, 3}, Shape{2, 3, 9}, Shape{5, 17, 24}, Shape{2, 65, 130}})
    for (const DType dtype : {f32, bf16})
      check_row({fmt::format("gated_residual {} {}", to_string(s), name_of(dtype)),
                 {random(s, 1), random({s[0], s[2]}, 2), random(s, 3, dtype)},
                 [](const Inputs& in) { return gated_residual(in[0], in[1], in[2]); },
                 [s](const std::vector<Values>& in) {
                   Values y = in[0];
                   for (int64_t i = 0; i < s.numel(); ++i)
                     y[at(i)] += in[1][at(i / (s[1] * s[2]) * s[2] + i % s[2])] * in[2][at(i)];
                   return y;
                 }});
}

TEST(Elementwise, AddFollowsItsFormula) {
  check_row({"add",
             {random({3, 5, 7}, 1), random({3, 5, 7}, 2)},
             [](const Inputs& in) { return add(in[0], in[1]); },
             [](const std::vector<Values>& in) {
               Values y = in[0];
               for (size_t i = 0; i < y.size(); ++i) y[i] += in[1][i];
               return y;
             }});
}

TEST(Elementwise, AddingATensorToItselfDoublesItsGradient) {
  Tensor x = random({4, 3}, 1);
  const Tensor g = random({4, 3}, 2);
  const Result result = run([](const Inputs& in) { return add(in[0], in[0]); }, {x}, g);
  Values twice = values_of(g);
  for (double& v : twice) v *= 2;
  EXPECT_LT(relative_error(result.gradients[0], twice), 1e-6);
}

TEST(Reductions, SumRowsFollowsItsFormula) {
  for (const int64_t rows : {0, 1, 3, 100, 1025})
    for (const int64_t columns : {1, 3, 24, 65, 130})
      for (const DType dtype : {f32, bf16}) {
        const Tensor x = random({rows, columns}, 1, dtype);
        Values expected(at(columns), 0.0), in = values_of(x);
        for (int64_t i = 0; i < rows * columns; ++i) expected[at(i % columns)] += in[at(i)];
        each_instruction_set(
            [&] { EXPECT_LT(relative_error(sum_rows(x), expected), 1e-5) << rows << " " << columns; });
      }
}

TEST(Reductions, SumOfSquaresFollowsItsFormula) {
  for (const int64_t n : {0, 1, 3, 17, 4095, 4096, 4097, 100000}) {
    const Tensor x = random({n}, 1);
    double expected = 0;
    for (const double v : values_of(x)) expected += v * v;
    each_instruction_set([&] { EXPECT_NEAR(sum_of_squares(x), expected, 1e-5 * expected) << n; });
  }
}

}  // namespace
}  // namespace linnet::ops::test
