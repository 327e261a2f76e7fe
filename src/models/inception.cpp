#include "models/inception.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/arrange.h"
#include "ops/combine.h"
#include "ops/conv2d.h"
#include "ops/linear.h"
#include "ops/pixels.h"
#include "ops/pool2d.h"

namespace linnet {
namespace {

constexpr int64_t input_side = 299, spatial_channels = 7, classes = 1008;
constexpr float batch_norm_epsilon = 1e-3f;

struct Kernel {
  int64_t height, width;
};

// A convolution without bias, batch norm with the moments of its training, and ReLU: one convolution in the
// end.
class BasicConv {
 public:
  BasicConv(std::string name, int64_t in, int64_t out, Kernel kernel, int64_t stride = 1, bool padded = true)
      : name_(std::move(name)), weight_({out, in, kernel.height, kernel.width}, nn::Init::xavier_uniform()),
        gain_({out}, nn::Init::zero()), shift_({out}, nn::Init::zero()), mean_({out}, nn::Init::zero()),
        variance_({out}, nn::Init::zero()) {
    const int64_t y = padded ? kernel.height / 2 : 0, x = padded ? kernel.width / 2 : 0;
    window_ = {stride, y, x, y, x};
  }

  Tensor forward(const Tensor& x) const {
    if (!packed_.defined()) pack();
    return packed_.apply(x, window_, DType::f32, ops::ConvActivation::relu);
  }

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
    const std::string name = prefix + name_ + ".";
    visitor(name + "conv.weight", weight_);
    visitor(name + "bn.weight", gain_);
    visitor(name + "bn.bias", shift_);
    visitor(name + "bn.running_mean", mean_);
    visitor(name + "bn.running_var", variance_);
  }

 private:
  void pack() const {
    const auto plain = [](const nn::Parameter& parameter) { return parameter.value.host().to(DType::f32); };
    Tensor weight = plain(weight_).clone(), bias = Tensor::empty(shift_.shape);
    const Tensor gain = plain(gain_), shift = plain(shift_), mean = plain(mean_), variance = plain(variance_);
    const int64_t out = weight.size(0), each = weight.numel() / out;
    for (int64_t o = 0; o < out; ++o) {
      const float scale = gain.data<float>()[o] / std::sqrt(variance.data<float>()[o] + batch_norm_epsilon);
      bias.mutable_data<float>()[o] = shift.data<float>()[o] - mean.data<float>()[o] * scale;
      for (int64_t i = 0; i < each; ++i) weight.mutable_data<float>()[o * each + i] *= scale;
    }
    packed_ = ops::PackedConv(weight, bias, DType::f32);
  }

  std::string name_;
  nn::Parameter weight_, gain_, shift_, mean_, variance_;
  ops::ConvWindow window_;
  mutable ops::PackedConv packed_;
};

// Convolutions one after the other, perhaps behind a pooling, and perhaps ending in two that see the same.
struct Branch {
  enum class First : uint8_t { none, mean, largest, largest_and_halve };

  First first = First::none;
  std::vector<BasicConv> chain;
  std::vector<BasicConv> fork;

  Tensor forward(Tensor x) const {
    if (first == First::mean) x = ops::pool2d(x, ops::Pooling::mean, 3, 1, 1);
    if (first == First::largest) x = ops::pool2d(x, ops::Pooling::largest, 3, 1, 1);
    if (first == First::largest_and_halve) x = ops::pool2d(x, ops::Pooling::largest, 3, 2, 0);
    for (const BasicConv& conv : chain) x = conv.forward(x);
    if (fork.empty()) return x;
    return ops::join_channels({fork[0].forward(x), fork[1].forward(x)});
  }
};

// Branches that see the same, joined.
struct Mixed {
  std::string name;
  std::vector<Branch> branches;

  Tensor forward(const Tensor& x) const {
    std::vector<Tensor> parts;
    for (const Branch& branch : branches) parts.push_back(branch.forward(x));
    return ops::join_channels(parts);
  }

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
    const std::string own = prefix + name + ".";
    for (Branch& branch : branches) {
      for (BasicConv& conv : branch.chain) conv.visit(own, visitor);
      for (BasicConv& conv : branch.fork) conv.visit(own, visitor);
    }
  }
};

using First = Branch::First;
constexpr Kernel one{1, 1}, three{3, 3}, five{5, 5}, flat{1, 7}, upright{7, 1}, flat3{1, 3}, upright3{3, 1};

// The five kinds of blocks, as torchvision calls them A to E.
Mixed block_a(std::string name, int64_t in, int64_t pooled) {
  return {
      std::move(name),
      {{First::none, {{"branch1x1", in, 64, one}}, {}},
       {First::none, {{"branch5x5_1", in, 48, one}, {"branch5x5_2", 48, 64, five}}, {}},
       {First::none,
        {{"branch3x3dbl_1", in, 64, one}, {"branch3x3dbl_2", 64, 96, three}, {"branch3x3dbl_3", 96, 96, three}},
        {}},
       {First::mean, {{"branch_pool", in, pooled, one}}, {}}}};
}

Mixed block_b(std::string name, int64_t in) {
  return {std::move(name),
          {{First::none, {{"branch3x3", in, 384, three, 2, false}}, {}},
           {First::none,
            {{"branch3x3dbl_1", in, 64, one},
             {"branch3x3dbl_2", 64, 96, three},
             {"branch3x3dbl_3", 96, 96, three, 2, false}},
            {}},
           {First::largest_and_halve, {}, {}}}};
}

Mixed block_c(std::string name, int64_t in, int64_t narrow) {
  return {std::move(name),
          {{First::none, {{"branch1x1", in, 192, one}}, {}},
           {First::none,
            {{"branch7x7_1", in, narrow, one},
             {"branch7x7_2", narrow, narrow, flat},
             {"branch7x7_3", narrow, 192, upright}},
            {}},
           {First::none,
            {{"branch7x7dbl_1", in, narrow, one},
             {"branch7x7dbl_2", narrow, narrow, upright},
             {"branch7x7dbl_3", narrow, narrow, flat},
             {"branch7x7dbl_4", narrow, narrow, upright},
             {"branch7x7dbl_5", narrow, 192, flat}},
            {}},
           {First::mean, {{"branch_pool", in, 192, one}}, {}}}};
}

Mixed block_d(std::string name, int64_t in) {
  return {std::move(name),
          {{First::none, {{"branch3x3_1", in, 192, one}, {"branch3x3_2", 192, 320, three, 2, false}}, {}},
           {First::none,
            {{"branch7x7x3_1", in, 192, one},
             {"branch7x7x3_2", 192, 192, flat},
             {"branch7x7x3_3", 192, 192, upright},
             {"branch7x7x3_4", 192, 192, three, 2, false}},
            {}},
           {First::largest_and_halve, {}, {}}}};
}

Mixed block_e(std::string name, int64_t in, First pooling) {
  return {std::move(name),
          {{First::none, {{"branch1x1", in, 320, one}}, {}},
           {First::none,
            {{"branch3x3_1", in, 384, one}},
            {{"branch3x3_2a", 384, 384, flat3}, {"branch3x3_2b", 384, 384, upright3}}},
           {First::none,
            {{"branch3x3dbl_1", in, 448, one}, {"branch3x3dbl_2", 448, 384, three}},
            {{"branch3x3dbl_3a", 384, 384, flat3}, {"branch3x3dbl_3b", 384, 384, upright3}}},
           {pooling, {{"branch_pool", in, 192, one}}, {}}}};
}

// (n, h, w, c) → (n, c)
Tensor mean_pixels(const Tensor& x) {
  return ops::mean_tokens(x.reshape({x.size(0), x.size(1) * x.size(2), x.size(3)}));
}

// The first channels of every pixel, in a row.
Tensor first_channels(const Tensor& x, int64_t wanted) {
  const int64_t n = x.size(0), pixels = x.size(1) * x.size(2), channels = x.size(3);
  const Tensor pixel_rows = x.host();
  Tensor result = Tensor::empty({n, pixels * wanted});
  for (int64_t i = 0; i < n * pixels; ++i)
    std::copy_n(pixel_rows.data<float>() + i * channels, wanted, result.mutable_data<float>() + i * wanted);
  return result;
}

}  // namespace

struct Inception::Network {
  std::vector<BasicConv> before_first = {{"Conv2d_1a_3x3", 3, 32, three, 2, false},
                                         {"Conv2d_2a_3x3", 32, 32, three, 1, false},
                                         {"Conv2d_2b_3x3", 32, 64, three}};
  std::vector<BasicConv> before_second = {{"Conv2d_3b_1x1", 64, 80, one},
                                          {"Conv2d_4a_3x3", 80, 192, three, 1, false}};
  std::vector<Mixed> before_third = {block_a("Mixed_5b", 192, 32),  block_a("Mixed_5c", 256, 64),
                                     block_a("Mixed_5d", 288, 64),  block_b("Mixed_6a", 288),
                                     block_c("Mixed_6b", 768, 128), block_c("Mixed_6c", 768, 160),
                                     block_c("Mixed_6d", 768, 160), block_c("Mixed_6e", 768, 192)};
  std::vector<Mixed> before_pool = {block_d("Mixed_7a", 768), block_e("Mixed_7b", 1280, First::mean),
                                    block_e("Mixed_7c", 2048, First::largest)};
  nn::Parameter head_weight{{classes, 2048}, nn::Init::xavier_uniform()},
      head_bias{{classes}, nn::Init::zero()};

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
    for (auto* convs : {&before_first, &before_second})
      for (BasicConv& conv : *convs) conv.visit(prefix, visitor);
    for (auto* blocks : {&before_third, &before_pool})
      for (Mixed& block : *blocks) block.visit(prefix, visitor);
    visitor(prefix + "fc.weight", head_weight);
    visitor(prefix + "fc.bias", head_bias);
  }
};

Inception::Inception() : network_(std::make_unique<Network>()) {}
Inception::Inception(Inception&&) noexcept = default;
Inception::~Inception() = default;

Inception::Features Inception::features(const Tensor& pictures) const {
  check(pictures.shape().rank() == 4 && pictures.size(1) == 3 && pictures.numel() > 0,
        "Inception takes pictures (n, 3, height, width), not shape {}", to_string(pictures.shape()));
  Features seen;
  const Tensor there = pictures.on_gpu() ? pictures : pictures.to(network_->head_weight.value.device());
  // The original takes bytes b as (b − 128)/128, which are (127.5·x − 0.5)/128 of x in −1..1.
  const Tensor ones = Tensor::full(there.shape(), 1.0f, there.device());
  const Tensor mapped = ops::combine({{127.5f / 128.0f, there}, {-0.5f / 128.0f, ones}});
  Tensor x = ops::resize_bilinear(ops::to_pixels(mapped, DType::f32), input_side, input_side);
  for (const BasicConv& conv : network_->before_first) x = conv.forward(x);
  x = ops::pool2d(x, ops::Pooling::largest, 3, 2, 0);
  seen.first = mean_pixels(x);
  for (const BasicConv& conv : network_->before_second) x = conv.forward(x);
  x = ops::pool2d(x, ops::Pooling::largest, 3, 2, 0);
  seen.second = mean_pixels(x);
  for (const Mixed& block : network_->before_third) {
    x = block.forward(x);
    // Its first branch, and so its first channels, are what the original calls "mixed_6/conv".
    if (block.name == "Mixed_6d") seen.spatial = first_channels(x, spatial_channels);
  }
  seen.third = mean_pixels(x);
  for (const Mixed& block : network_->before_pool) x = block.forward(x);
  seen.pool = mean_pixels(x);
  return seen;
}

Tensor Inception::probabilities(const Tensor& pool) const {
  Tensor result =
      ops::linear(pool, network_->head_weight.value.to(DType::f32), {}, ops::Activation::none, DType::f32)
          .host();
  for (int64_t i = 0; i < result.size(0); ++i) {
    float* row = result.mutable_data<float>() + i * classes;
    const float top = *std::max_element(row, row + classes);
    float total = 0;
    for (int64_t c = 0; c < classes; ++c) total += row[c] = std::exp(row[c] - top);
    for (int64_t c = 0; c < classes; ++c) row[c] /= total;
  }
  return result;
}

void Inception::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  network_->visit(prefix, visitor);
}

}  // namespace linnet
