// What convolutional networks are built of, against plain loops in f64: convolution, group norm, attention of
// one wide head, and what moves pixels.
#include <algorithm>
#include <array>

#include "ops/conv2d.h"
#include "ops/group_norm.h"
#include "ops/pixels.h"
#include "ops/pool2d.h"
#include "ops/wide_attention.h"
#include "support.h"
#include "support/processor.h"
#include "support/refusal.h"

namespace linnet::ops::test {
namespace {

using linnet::test::expect_refused;

// A picture (n, h, w, c) or a weight (out, in, h, w) in f64, zero outside.
struct Grid {
  explicit Grid(const Tensor& x) : shape(x.shape()), values(values_of(x)) {}
  double at(int64_t a, int64_t b, int64_t c, int64_t d) const {
    if (b < 0 || b >= shape[1] || c < 0 || c >= shape[2]) return 0;
    return values[static_cast<size_t>(((a * shape[1] + b) * shape[2] + c) * shape[3] + d)];
  }
  Shape shape;
  Values values;
};

Values plain_conv(const Tensor& x_, const Tensor& weight_, const Tensor& bias_, const ConvWindow& window) {
  const Grid x(x_), weight(weight_);
  const Values bias = values_of(bias_);
  const int64_t kernel_h = weight.shape[2], kernel_w = weight.shape[3];
  const int64_t height = (x.shape[1] + window.top + window.bottom - kernel_h) / window.stride + 1;
  const int64_t width = (x.shape[2] + window.left + window.right - kernel_w) / window.stride + 1;
  Values result;
  for (int64_t n = 0; n < x.shape[0]; ++n)
    for (int64_t i = 0; i < height; ++i)
      for (int64_t j = 0; j < width; ++j)
        for (int64_t o = 0; o < weight.shape[0]; ++o) {
          double sum = bias[static_cast<size_t>(o)];
          for (int64_t ky = 0; ky < kernel_h; ++ky)
            for (int64_t kx = 0; kx < kernel_w; ++kx)
              for (int64_t c = 0; c < weight.shape[1]; ++c)
                sum += weight.at(o, c, ky, kx) *
                       x.at(n, i * window.stride + ky - window.top, j * window.stride + kx - window.left, c);
          result.push_back(sum);
        }
  return result;
}

struct ConvCase {
  Shape x, weight;
  ConvWindow window;
};

const ConvCase conv_cases[] = {
    {{1, 1, 1, 1}, {1, 1, 1, 1}, {}},
    {{2, 5, 7, 3}, {8, 3, 3, 3}, ConvWindow::padded(1)},
    {{1, 9, 4, 17}, {5, 17, 3, 3}, ConvWindow::padded(1)},
    {{1, 8, 8, 32}, {64, 32, 3, 3}, ConvWindow::padded(1)},
    {{1, 8, 6, 16}, {16, 16, 3, 3}, {2, 0, 0, 1, 1}},
    {{2, 6, 6, 16}, {3, 16, 3, 3}, {1, 1, 1, 0, 1}},
    {{1, 7, 5, 16}, {16, 16, 2, 2}, {1, 1, 0, 0, 1}},
    {{1, 11, 11, 4}, {6, 4, 1, 7}, {1, 0, 3, 0, 3}},
    {{1, 9, 9, 24}, {8, 24, 3, 3}, {2, 0, 0, 0, 0}},
};

TEST(Conv2d, IsWhatPlainLoopsCompute) {
  for (const ConvCase& c : conv_cases)
    for (const DType dtype : linnet::test::product_dtypes()) {
      SCOPED_TRACE(to_string(c.x) + " * " + to_string(c.weight));
      const Tensor x = random(c.x, 1, dtype), weight = random(c.weight, 2, dtype),
                   bias = random({c.weight[0]}, 3);
      const Values expected = plain_conv(x, weight, bias, c.window);
      const PackedConv conv(weight, bias, dtype);
      for (const DType out : {dtype, DType::f32})
        EXPECT_LT(relative_error(conv.apply(x, c.window, out), expected), dtype == DType::bf16 ? 6e-3 : 1e-6);
    }
}

TEST(Conv2d, FusesReluAndSum) {
  const Tensor x = random({1, 6, 5, 8}, 1), weight = random({4, 8, 3, 3}, 2), bias = random({4}, 3),
               other = random({1, 6, 5, 4}, 4);
  const ConvWindow window = ConvWindow::padded(1);
  const PackedConv conv(weight, bias, DType::f32);
  Values plain = plain_conv(x, weight, bias, window), positive = plain;
  for (double& v : positive) v = std::max(v, 0.0);
  EXPECT_LT(relative_error(conv.apply(x, window, DType::f32, ConvActivation::relu), positive), 1e-6);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] += values_of(other)[i];
  EXPECT_LT(relative_error(conv.add_to(other.clone(), x, window), plain), 1e-6);
}

TEST(Conv2d, WithoutBiasAddsNothing) {
  const Tensor x = random({1, 4, 4, 3}, 1), weight = random({2, 3, 3, 3}, 2);
  EXPECT_LT(relative_error(PackedConv(weight, {}, DType::f32).apply(x, ConvWindow::padded(1), DType::f32),
                           plain_conv(x, weight, Tensor::zeros({2}), ConvWindow::padded(1))),
            1e-6);
}

TEST(Conv2d, RefusesWhatDoesNotFit) {
  const PackedConv conv(random({2, 3, 3, 3}, 1), {}, DType::f32);
  const auto apply = [&](const Tensor& x) { (void)conv.apply(x, {}, DType::f32); };
  EXPECT_EQ(error_of([&] {
              apply(random({1, 4, 4, 2}, 1));
            }),
            "a convolution of 3 channels got shape (1, 4, 4, 2)");
  EXPECT_EQ(error_of([&] {
              apply(random({1, 2, 4, 3}, 1));
            }),
            "a picture of 2x4 is smaller than a convolution's 3x3");
  EXPECT_EQ(error_of([&] {
              apply(random({1, 4, 4, 3}, 1, DType::bf16));
            }),
            "a convolution packed as f32 got bf16");
  expect_refused("result of shape (1, 2, 2, 2) cannot be added to (1, 4, 4, 2)", [&] {
    (void)conv.add_to(random({1, 4, 4, 2}, 1), random({1, 4, 4, 3}, 1), {});
  });
  expect_refused("four dimensions, not shape (2, 3)", [&] {
    (void)PackedConv(random({2, 3}, 1), {}, DType::f32);
  });
  expect_refused("a bias of shape (3) does not fit 2 channels", [&] {
    (void)PackedConv(random({2, 3, 1, 1}, 1), random({3}, 1), DType::f32);
  });
}

Values plain_group_norm(const Tensor& x_, int64_t groups, const Tensor& weight, const Tensor& bias, bool silu) {
  const Grid x(x_);
  const int64_t channels = x.shape[3], each = channels / groups, pixels = x.shape[1] * x.shape[2];
  const Values w = values_of(weight), b = values_of(bias);
  Values result = x.values;
  for (int64_t n = 0; n < x.shape[0]; ++n)
    for (int64_t g = 0; g < groups; ++g) {
      const auto each_value = [&](auto body) {
        for (int64_t p = 0; p < pixels; ++p)
          for (int64_t c = g * each; c < (g + 1) * each; ++c)
            body(static_cast<size_t>((n * pixels + p) * channels + c), static_cast<size_t>(c));
      };
      const auto count = static_cast<double>(pixels * each);
      double mean = 0, variance = 0;
      each_value([&](size_t i, size_t) { mean += x.values[i] / count; });
      each_value([&](size_t i, size_t) { variance += (x.values[i] - mean) * (x.values[i] - mean) / count; });
      each_value([&](size_t i, size_t c) {
        const double v = (x.values[i] - mean) / std::sqrt(variance + 1e-6) * w[c] + b[c];
        result[i] = silu ? v / (1 + std::exp(-v)) : v;
      });
    }
  return result;
}

TEST(GroupNorm, IsWhatPlainLoopsCompute) {
  each_instruction_set([] {
    for (const auto& [shape, groups] : std::vector<std::pair<Shape, int64_t>>{{{1, 1, 1, 2}, 1},
                                                                              {{2, 3, 5, 6}, 3},
                                                                              {{1, 17, 9, 32}, 8},
                                                                              {{1, 65, 70, 20}, 5},
                                                                              {{2, 3, 4, 520}, 4}})
      for (const DType dtype : {DType::f32, DType::bf16})
        for (const bool silu : {false, true}) {
          SCOPED_TRACE(to_string(shape));
          const Tensor x = random(shape, 1, dtype, 3.0f), weight = random({shape[3]}, 2),
                       bias = random({shape[3]}, 3);
          const Values expected = plain_group_norm(x, groups, weight, bias, silu);
          const Tensor y = normalize_groups(x, group_moments(x, groups), weight, bias, 1e-6f, silu);
          EXPECT_EQ(y.dtype(), dtype);
          EXPECT_LT(relative_error(y, expected), dtype == DType::bf16 ? 6e-3 : 1e-5);
        }
  });
}

TEST(GroupNorm, SeesASmallDeviationFromALargeMean) {
  Tensor x = random({1, 64, 64, 4}, 1);
  for (float& v : std::span(x.mutable_data<float>(), static_cast<size_t>(x.numel()))) v = 1000.0f + 0.01f * v;
  const Tensor one = Tensor::full({4}, 1), none = Tensor::zeros({4});
  EXPECT_LT(relative_error(normalize_groups(x, group_moments(x, 2), one, none, 1e-6f, false),
                           plain_group_norm(x, 2, one, none, false)),
            2e-2);  // x itself is only known to 6e-5
}

TEST(GroupNorm, TakesTheMemoryOfWhatNobodyElseHolds) {
  Tensor x = random({1, 4, 4, 4}, 1);
  const Tensor kept = x, moments = group_moments(x, 2), one = Tensor::full({4}, 1), none = Tensor::zeros({4});
  const Values before = values_of(x);
  (void)normalize_groups(x, moments, one, none, 1e-6f, true);
  EXPECT_EQ(values_of(kept), before);
  Tensor own = x.clone();
  const void* place = own.raw();
  EXPECT_EQ(normalize_groups(std::move(own), moments, one, none, 1e-6f, true).raw(), place);
}

TEST(GroupNorm, DoesNotDependOnTheThreads) {
  const Tensor x = random({2, 90, 97, 8}, 1);
  const Threads one(1);
  const Tensor alone = group_moments(x, 4);
  const Threads three(3);
  EXPECT_TRUE(same_bytes(alone, group_moments(x, 4)));
}

TEST(GroupNorm, RefusesWhatDoesNotFit) {
  const Tensor x = random({1, 2, 2, 6}, 1), weight = random({6}, 1);
  expect_refused("does not fall into 4 groups", [&] { (void)group_moments(x, 4); });
  expect_refused("no pixels has no mean", [&] { (void)group_moments(Tensor::zeros({1, 0, 2, 6}), 2); });
  expect_refused("moments of 2 pictures do not fit 1", [&] {
    (void)normalize_groups(x, Tensor::zeros({2, 2, 2}), weight, weight, 0, false);
  });
  expect_refused("6 channels do not fit weight and bias of 5 and 6",
                 [&] { (void)normalize_groups(x, group_moments(x, 2), random({5}, 1), weight, 0, false); });
}

Values plain_attention(const Tensor& q_, const Tensor& k_, const Tensor& v_) {
  const Values q = values_of(q_), k = values_of(k_), v = values_of(v_);
  const auto tokens = static_cast<size_t>(q_.size(1)), d = static_cast<size_t>(q_.size(2));
  Values result(q.size());
  for (size_t i = 0; i < q.size() / d; ++i) {
    const size_t sample = i / tokens * tokens;
    Values share(tokens);
    double total = 0;
    for (size_t j = 0; j < tokens; ++j) {
      for (size_t c = 0; c < d; ++c) share[j] += q[i * d + c] * k[(sample + j) * d + c];
      total += share[j] = std::exp(share[j] / std::sqrt(static_cast<double>(d)));
    }
    for (size_t j = 0; j < tokens; ++j)
      for (size_t c = 0; c < d; ++c) result[i * d + c] += share[j] / total * v[(sample + j) * d + c];
  }
  return result;
}

TEST(WideAttention, IsWhatPlainLoopsCompute) {
  each_instruction_set([] {
    for (const Shape& shape : {Shape{1, 1, 3}, Shape{2, 17, 8}, Shape{1, 65, 40}, Shape{1, 1100, 6}})
      for (const DType dtype : linnet::test::product_dtypes()) {
        SCOPED_TRACE(to_string(shape));
        const Tensor q = random(shape, 1, dtype), k = random(shape, 2, dtype, 2.0f),
                     v = random(shape, 3, dtype);
        EXPECT_LT(relative_error(wide_attention(q, k, v), plain_attention(q, k, v)), tolerance(dtype));
      }
  });
}

TEST(WideAttention, LargeScoresDoNotOverflow) {
  const Tensor q = random({1, 20, 16}, 1, DType::f32, 100.0f), v = random({1, 20, 16}, 2);
  const Tensor mixed = wide_attention(q, q, v);  // a token sees itself alone
  EXPECT_LT(relative_error(mixed, values_of(v)), 1e-5);
}

TEST(WideAttention, PassesNotANumberOn) {
  expect_passes_not_a_number_on([](const Inputs& in) { return wide_attention(in[0], in[1], in[2]); },
                                {random({1, 40, 8}, 1), random({1, 40, 8}, 2), random({1, 40, 8}, 3)});
}

TEST(Pixels, GoThereAndBack) {
  const Tensor planes = random({2, 3, 5, 7}, 1);
  const Tensor pixels = to_pixels(planes, DType::f32);
  EXPECT_EQ(pixels.shape(), (Shape{2, 5, 7, 3}));
  EXPECT_EQ(pixels.data<float>()[(1 * 5 + 2) * 7 * 3 + 4 * 3 + 2],
            planes.data<float>()[((1 * 3 + 2) * 5 + 2) * 7 + 4]);
  EXPECT_TRUE(same_bytes(to_planes(pixels), planes));
  EXPECT_TRUE(same_bytes(to_planes(to_pixels(planes, DType::bf16)), planes.to(DType::bf16).to(DType::f32)));
}

TEST(Pixels, Interleave) {
  Tensor picture = Tensor::zeros({1, 4, 6, 2});
  interleave(Tensor::full({1, 2, 3, 2}, 7), 1, 0, picture);
  for (int64_t i = 0; i < picture.numel(); ++i) {
    const int64_t row = i / 12, column = i / 2 % 6;
    EXPECT_EQ(picture.data<float>()[i], row % 2 == 1 && column % 2 == 0 ? 7.0f : 0.0f) << i;
  }
  expect_refused("pixels of shape (1, 2, 2, 2) cannot be every second one of (1, 4, 6, 2)", [&] {
    interleave(Tensor::zeros({1, 2, 2, 2}), 0, 0, picture);
  });
}

TEST(Pixels, RowsAreAViewWhereTheyLieTogether) {
  const Tensor one = random({1, 5, 2, 3}, 1), two = random({2, 5, 2, 3}, 2);
  EXPECT_EQ(crop_rows(one, 2, 4).raw(), one.data<float>() + 12);
  const Tensor cropped = crop_rows(two, 2, 4);
  EXPECT_EQ(cropped.shape(), (Shape{2, 2, 2, 3}));
  EXPECT_EQ(cropped.data<float>()[12], two.data<float>()[30 + 12]);
  expect_refused("no rows 3 to 6 of shape (1, 5, 2, 3)", [&] { (void)crop_rows(one, 3, 6); });
}

TEST(Pool2d, LooksAtWhatIsInside) {
  const Tensor x = random({2, 5, 6, 3}, 1);
  const Grid grid(x);
  for (const auto& [size, stride, padding] : {std::array<int64_t, 3>{3, 1, 1}, {3, 2, 0}, {2, 2, 0}})
    for (const Pooling pooling : {Pooling::largest, Pooling::mean}) {
      const int64_t height = (5 + 2 * padding - size) / stride + 1,
                    width = (6 + 2 * padding - size) / stride + 1;
      Values expected;
      for (int64_t n = 0; n < 2; ++n)
        for (int64_t i = 0; i < height; ++i)
          for (int64_t j = 0; j < width; ++j)
            for (int64_t c = 0; c < 3; ++c) {
              double top = -1e9, sum = 0, count = 0;
              for (int64_t y = i * stride - padding; y < i * stride - padding + size; ++y)
                for (int64_t z = j * stride - padding; z < j * stride - padding + size; ++z) {
                  if (y < 0 || y >= 5 || z < 0 || z >= 6) continue;
                  top = std::max(top, grid.at(n, y, z, c));
                  sum += grid.at(n, y, z, c);
                  ++count;
                }
              expected.push_back(pooling == Pooling::largest ? top : sum / count);
            }
      EXPECT_LT(relative_error(pool2d(x, pooling, size, stride, padding), expected), 1e-6);
    }
  expect_refused("a window of 9 pixels does not fit shape (2, 5, 6, 3)",
                 [&] { (void)pool2d(x, Pooling::mean, 9, 1, 0); });
}

TEST(JoinChannels, LaysThemBehindEachOther) {
  const Tensor a = random({2, 2, 3, 2}, 1), b = random({2, 2, 3, 5}, 2), joined = join_channels({a, b});
  ASSERT_EQ(joined.shape(), (Shape{2, 2, 3, 7}));
  for (int64_t pixel = 0; pixel < 12; ++pixel) {
    EXPECT_EQ(joined.data<float>()[pixel * 7 + 1], a.data<float>()[pixel * 2 + 1]);
    EXPECT_EQ(joined.data<float>()[pixel * 7 + 4], b.data<float>()[pixel * 5 + 2]);
  }
  expect_refused("cannot be joined", [&] { (void)join_channels({a, random({2, 3, 2, 2}, 1)}); });
}

TEST(ResizeBilinear, OfALineIsALine) {
  Tensor x = Tensor::empty({1, 4, 8, 1});
  for (int64_t i = 0; i < 32; ++i)
    x.mutable_data<float>()[i] = static_cast<float>(i % 8) + 10 * static_cast<float>(i / 8);
  const Tensor y = resize_bilinear(x, 8, 16);
  // Corners: pixel j of 16 lies at j/2; beyond the last source pixel it is that.
  EXPECT_NEAR(y.data<float>()[0], 0, 1e-6);
  EXPECT_NEAR(y.data<float>()[2 * 16 + 5], 10 * 1 + 2.5, 1e-5);
  EXPECT_NEAR(y.data<float>()[7 * 16 + 15], 37, 1e-5);
  EXPECT_TRUE(same_bytes(resize_bilinear(x, 4, 8), x));
}

}  // namespace
}  // namespace linnet::ops::test
