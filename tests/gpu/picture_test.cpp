// Pictures on the GPU: convolutions, group norm, layouts, pooling and resizing, and the networks built of them.
#include "gpu/support.h"
#include "models/vae.h"
#include "nn/conv2d.h"
#include "ops/conv2d.h"
#include "ops/gpu_kernels.h"
#include "ops/group_norm.h"
#include "ops/pixels.h"
#include "ops/pool2d.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;

// The same operation in both places, not differentiable.
void check_picture(const std::string& name, const Inputs& inputs, const std::string& typed,
                   const TypedOperation& operation, std::vector<DType> types = {f32, bf16, f16}) {
  check_on_gpu({name, inputs, typed, operation, false, std::move(types)});
}

struct ConvCase {
  Shape x;
  int64_t out, height, width;
  ConvWindow window;
};
const std::vector<ConvCase> convs{{{1, 1, 1, 1}, 1, 1, 1, {}},
                                  {{2, 7, 5, 3}, 8, 3, 3, ConvWindow::padded(1)},
                                  {{1, 8, 8, 16}, 16, 3, 3, ConvWindow::padded(1)},
                                  {{2, 8, 6, 8}, 5, 3, 3, {2, 0, 0, 1, 1}},
                                  {{1, 6, 7, 4}, 6, 2, 2, {1, 1, 0, 0, 1}},
                                  {{1, 9, 9, 6}, 4, 1, 7, {1, 0, 3, 0, 3}},
                                  {{1, 9, 9, 6}, 4, 3, 3, {2, 0, 0, 0, 0}}};

TEST(GpuOperations, Convolution) {
  LINNET_NEED_GPU();
  for (const ConvCase& c : convs) {
    const Tensor weight = random({c.out, c.x[3], c.height, c.width}, 2), bias = random({c.out}, 3);
    for (const ConvActivation activation : {ConvActivation::none, ConvActivation::relu})
      for (const bool biased : {false, true})
        for (const bool wide : {false, true})
          check_picture(fmt::format("convolution of {}", to_string(c.x)), {random(c.x, 1), weight, bias}, "tt.",
                        [=](const Inputs& in, DType dtype) {
                          const PackedConv conv(in[1], biased ? in[2] : Tensor(), dtype);
                          return conv.apply(in[0], c.window, wide ? f32 : dtype, activation);
                        });
  }
}

TEST(GpuOperations, ConvolutionInto16Bits) {
  LINNET_NEED_GPU();
  const ConvCase& c = convs[1];
  check_picture(
      "convolution", {random(c.x, 1), random({c.out, c.x[3], c.height, c.width}, 2)}, "..",
      [=](const Inputs& in, DType dtype) { return PackedConv(in[1], {}, f32).apply(in[0], c.window, dtype); });
}

TEST(GpuConvolution, AddsToWhatIsThere) {
  LINNET_NEED_GPU();
  for (const ConvCase& c : convs)
    check_picture(fmt::format("convolution of {}", to_string(c.x)),
                  {random(c.x, 1), random({c.out, c.x[3], c.height, c.width}, 2), random({c.out}, 3)}, "tt.",
                  [=](const Inputs& in, DType dtype) {
                    const PackedConv conv(in[1], in[2], dtype);
                    const Tensor first = conv.apply(in[0], c.window, dtype);
                    Tensor sum = first.clone();
                    const void* const memory = sum.address();
                    const Tensor result = conv.add_to(std::move(sum), in[0], c.window);
                    EXPECT_EQ(result.address(), memory);
                    return result;
                  });
}

TEST(GpuConvolution, WorksWhereItsInputOrItsWeightLies) {
  LINNET_NEED_GPU();
  const Tensor x = random({1, 5, 5, 3}, 1), weight = random({4, 3, 3, 3}, 2), bias = random({4}, 3);
  const ConvWindow window = ConvWindow::padded(1);
  const PackedConv here(weight, bias, f32), there(weight.to(the_gpu), bias, f32);
  const Tensor expected = here.apply(x, window, f32);
  for (const Tensor& y : {here.apply(x.to(the_gpu), window, f32), there.apply(x, window, f32),
                          there.apply(x.to(the_gpu), window, f32)}) {
    ASSERT_TRUE(y.on_gpu());
    EXPECT_LT(relative_error(y.host(), values_of(expected)), 1e-5);
  }
  EXPECT_FALSE(here.apply(x, window, f32).on_gpu());
}

TEST(GpuConvolution, Enlarges) {
  LINNET_NEED_GPU();
  nn::UpsampleConv conv(8);
  conv.visit("", [](const std::string& name, nn::Parameter& parameter) {
    parameter.value = random(parameter.shape, name == "weight" ? 1 : 2);
  });
  check_picture("enlarged", {random({2, 5, 3, 8}, 3)}, "t",
                [&](const Inputs& in, DType) { return conv.forward(in[0]); });
  check_picture("a band of it", {random({1, 5, 3, 8}, 3)}, "t",
                [&](const Inputs& in, DType) { return conv.forward(in[0], false, false); });
}

struct NormCase {
  Shape x;
  int64_t groups;
};

TEST(GpuOperations, GroupNorm) {
  LINNET_NEED_GPU();
  for (const NormCase& c : std::vector<NormCase>{{{1, 1, 1, 2}, 1},
                                                 {{2, 3, 5, 6}, 3},
                                                 {{2, 9, 7, 32}, 8},
                                                 {{1, 17, 13, 64}, 32},
                                                 {{1, 2, 3, 2304}, 32}})
    for (const bool silu : {false, true}) {
      const int64_t channels = c.x[3];
      check_picture(fmt::format("group norm of {}", to_string(c.x)),
                    {random(c.x, 1), random({channels}, 2), random({channels}, 3)}, "t..",
                    [=](const Inputs& in, DType) {
                      return normalize_groups(in[0], group_moments(in[0], c.groups), in[1], in[2], 1e-5f, silu);
                    });
    }
}

TEST(GpuGroupNorm, FindsASmallVarianceBesideALargeMean) {
  LINNET_NEED_GPU();
  Tensor x = random({2, 31, 33, 8}, 1);
  for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data<float>()[i] = 1000.0f + 0.1f * x.data<float>()[i];
  const Tensor expected = group_moments(x, 4), actual = group_moments(x.to(the_gpu), 4).host();
  for (int64_t i = 0; i < expected.numel(); ++i)
    EXPECT_NEAR(actual.data<float>()[i] / expected.data<float>()[i], 1.0, 1e-5);
}

TEST(GpuGroupNorm, OfManyPicturesMayShareMoments) {
  LINNET_NEED_GPU();
  check_picture("shared moments", {random({3, 4, 5, 16}, 1), random({16}, 2), random({16}, 3)}, "t..",
                [](const Inputs& in, DType) {
                  return normalize_groups(in[0], group_moments(in[0].rows(0, 1), 4), in[1], in[2], 1e-5f,
                                          false);
                });
}

TEST(GpuGroupNorm, TakesTheMemoryOfWhatNobodyElseHolds) {
  LINNET_NEED_GPU();
  Tensor x = random({1, 4, 4, 8}, 1).to(the_gpu);
  const Tensor moments = group_moments(x, 2), one = Tensor::full({8}, 1), zero = Tensor::zeros({8});
  const void* const memory = x.address();
  EXPECT_NE(normalize_groups(x, moments, one, zero, 1e-5f, true).address(), memory);
  EXPECT_EQ(normalize_groups(std::move(x), moments, one, zero, 1e-5f, true).address(), memory);
}

TEST(GpuOperations, LayoutsOfPictures) {
  LINNET_NEED_GPU();
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 3, 5, 7}, Shape{1, 40, 9, 6}}) {
    check_picture("pixels", {random(shape, 1)}, "t",
                  [](const Inputs& in, DType dtype) { return to_pixels(in[0], dtype); });
    check_picture("pixels of f32", {random(shape, 1)}, ".",
                  [](const Inputs& in, DType dtype) { return to_pixels(in[0], dtype); });
    check_picture("planes", {random(shape, 1)}, "t", [](const Inputs& in, DType) { return to_planes(in[0]); });
  }
}

TEST(GpuOperations, Interleaving) {
  LINNET_NEED_GPU();
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 3, 5, 3}, Shape{2, 4, 3, 8}, Shape{1, 2, 300, 2}})
    check_picture(fmt::format("interleaved {}", to_string(shape)), {random(shape, 1)}, "t",
                  [shape](const Inputs& in, DType) {
                    Tensor picture = Tensor::zeros({shape[0], 2 * shape[1], 2 * shape[2], shape[3]},
                                                   in[0].dtype(), in[0].device());
                    interleave(in[0], 1, 0, picture);
                    interleave(in[0], 0, 1, picture);
                    return picture;
                  });
}

TEST(GpuOperations, Rows) {
  LINNET_NEED_GPU();
  for (const int64_t n : {1, 3})
    check_picture("rows", {random({n, 6, 3, 5}, 1)}, "t",
                  [](const Inputs& in, DType) { return crop_rows(in[0], 1, 5); });
}

TEST(GpuOperations, Pooling) {
  LINNET_NEED_GPU();
  for (const Pooling pooling : {Pooling::largest, Pooling::mean})
    for (const int64_t padding : {0, 1})
      for (const int64_t stride : {1, 2})
        check_picture("pooling", {random({2, 7, 5, 3}, 1)}, ".",
                      [=](const Inputs& in, DType) { return pool2d(in[0], pooling, 3, stride, padding); },
                      {f32});
}

TEST(GpuOperations, Resizing) {
  LINNET_NEED_GPU();
  for (const auto& [height, width] : {std::pair{1, 1}, {5, 9}, {13, 4}})
    check_picture("resizing", {random({2, 6, 7, 3}, 1)}, ".",
                  [height = height, width = width](const Inputs& in, DType) {
                    return resize_bilinear(in[0], height, width);
                  },
                  {f32});
}

TEST(GpuOperations, JoinedChannels) {
  LINNET_NEED_GPU();
  check_picture("joined", {random({2, 3, 2, 5}, 1), random({2, 3, 2, 1}, 2), random({2, 3, 2, 8}, 3)}, "...",
                [](const Inputs& in, DType) {
                  return join_channels({in[0], in[1], in[2]});
                },
                {f32});
}

// Every parameter by its number; the gains of norms near 1.
template <class Model>
void draw_all(Model& model) {
  uint64_t seed = 100;
  model.visit("", [&](const std::string& name, nn::Parameter& p) {
    p.value = random(p.shape, ++seed);
    const float scale =
        p.shape.rank() > 1 ? 1.0f / std::sqrt(static_cast<float>(p.shape.numel() / p.shape[0])) : 0.1f;
    const bool around_1 = name.ends_with("running_var") || (p.shape.rank() == 1 && name.ends_with("weight"));
    for (int64_t i = 0; i < p.value.numel(); ++i) {
      float& v = p.value.template mutable_data<float>()[i];
      v = v * scale + (around_1 ? 1.0f : 0.0f);
    }
  });
}
template <class Model>
void move(Model& model, const Device& device) {
  model.visit("", [&](const std::string&, nn::Parameter& p) { p.value = p.value.to(device); });
}

VaeConfig tiny_vae() {
  VaeConfig config;
  config.block_out_channels = {8, 16};
  config.layers_per_block = 1;
  config.norm_num_groups = 4;
  return config;
}

class GpuVae : public testing::Test {
 protected:
  GpuVae() {
    draw_all(here_);
    draw_all(there_);
  }
  Vae here_{tiny_vae()}, there_{tiny_vae()};
};

TEST_F(GpuVae, DecodesAsTheCpuDoes) {
  LINNET_NEED_GPU();
  move(there_, the_gpu);
  const Tensor latents = random({2, 4, 5, 3}, 1), expected = here_.decode(latents);
  for (const DType dtype : {f32, bf16, f16}) {
    there_.set_product_dtype(dtype);
    const Tensor pictures = there_.decode(latents);
    ASSERT_TRUE(pictures.on_gpu());
    EXPECT_LT(relative_error(pictures.host(), values_of(expected)), 2 * gpu_tolerance(dtype)) << name_of(dtype);
  }
}

TEST_F(GpuVae, DecodesInBands) {
  LINNET_NEED_GPU();
  const Tensor latents = random({2, 4, 5, 3}, 1), expected = here_.decode(latents);
  EXPECT_LT(relative_error(here_.decode(latents.to(the_gpu), 1).host(), values_of(expected)), 1e-4);
}

TEST_F(GpuVae, EncodesAsTheCpuDoes) {
  LINNET_NEED_GPU();
  move(there_, the_gpu);
  const Tensor pictures = random({2, 3, 8, 6}, 1);
  const LatentMoments expected = here_.encode(pictures), actual = there_.encode(pictures);
  EXPECT_LT(relative_error(actual.mean, values_of(expected.mean)), 1e-4);
  EXPECT_LT(relative_error(actual.logvar, values_of(expected.logvar)), 1e-4);
  const Tensor noise = random(actual.mean.shape(), 2);
  EXPECT_LT(relative_error(actual.sample(noise.to(the_gpu)), values_of(expected.sample(noise))), 1e-4);
}

// As decoding does that falls back to bands: where memory ends while the filters are laid out, the next try
// begins anew.
TEST(GpuConvolution, IsLaidOutAgainWhereMemoryEnded) {
  LINNET_NEED_GPU();
  const GpuApi& api = gpu();
  // Input, filters and result are of the large segments.
  const Tensor x = random({1, 32, 32, 512}, 1).to(DType::bf16).to(the_gpu);
  const PackedConv conv(random({1024, 512, 1, 1}, 2), random({1024}, 3), DType::bf16);
  const ConvWindow window{1, 0, 0, 0, 0};
  api.release_cached();
  api.limit(api.stats().in_use + api.stats().cached +
            (size_t{2} << 20));  // and room for few of the small blocks, as biases are
  std::vector<Tensor> small;
  try {
    for (;;) small.push_back(Tensor::zeros({128}, DType::f32, the_gpu));
  } catch (const OutOfMemory&) {
  }
  EXPECT_THROW(conv.apply(x, window, DType::bf16), OutOfMemory);
  small.clear();
  api.limit(0);
  EXPECT_GT(conv.apply(x, window, DType::bf16).numel(), 0);
}

}  // namespace
}  // namespace linnet::ops::test
