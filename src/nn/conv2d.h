// Layers of convolutional networks on pictures (n, height, width, channels). They come trained: they run
// frozen, on packed copies of their weights, and record nothing.
#pragma once

#include "nn/parameter.h"
#include "ops/conv2d.h"

namespace linnet::nn {

class Conv2d {
 public:
  Conv2d() = default;
  /// A square kernel, padded so that a stride of 1 keeps the size.
  Conv2d(int64_t in, int64_t out, int64_t kernel)
      : weight({out, in, kernel, kernel}, Init::xavier_uniform()), bias({out}, Init::zero()) {}

  /// x (n, h, w, in) f32 or bf16 → (n, h, w, out).
  Tensor forward(const Tensor& x) const { return forward(x, same(), x.dtype()); }
  Tensor forward(const Tensor& x, const ops::ConvWindow& window, DType out_dtype) const {
    return packed(x.dtype()).apply(x, window, out_dtype);
  }
  /// Its result is added to sum, whose memory is taken.
  Tensor add_to(Tensor sum, const Tensor& x) const { return add_to(std::move(sum), x, same()); }
  Tensor add_to(Tensor sum, const Tensor& x, const ops::ConvWindow& window) const {
    return packed(x.dtype()).add_to(std::move(sum), x, window);
  }

  int64_t reach() const { return weight.shape[2] / 2; }  ///< how many pixels around one it looks at
  ops::ConvWindow same() const { return ops::ConvWindow::padded(reach()); }

  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    visitor(prefix + "weight", weight);
    visitor(prefix + "bias", bias);
  }

  Parameter weight, bias;

 private:
  const ops::PackedConv& packed(DType dtype) const;

  mutable ops::PackedConv packed_;
};

/// Twice the size by repeating pixels, then a 3×3 convolution: computed as four convolutions of 2×2, one for
/// each place that a pixel can have among the four made of one, with the weights that meet the same pixel added
/// up. So it takes 4/9 of the products, and the enlarged picture is never there.
class UpsampleConv {
 public:
  UpsampleConv() = default;
  explicit UpsampleConv(int64_t channels) : conv_(channels, channels, 3) {}

  /// x (n, h, w, c) → (n, 2h, 2w, c).
  Tensor forward(const Tensor& x) const { return forward(x, true, true); }
  /// Of rows of a picture, whose first and last are also the picture's or are only there to be looked at, and
  /// are left out of the result.
  Tensor forward(const Tensor& x, bool at_top, bool at_bottom) const;

  void visit(const std::string& prefix, const ParameterVisitor& visitor) { conv_.visit(prefix, visitor); }

 private:
  void pack(DType dtype) const;

  Conv2d conv_;
  mutable ops::PackedConv packed_[2][2];
};

class GroupNorm {
 public:
  GroupNorm() = default;
  GroupNorm(int64_t groups_, int64_t channels, float epsilon_)
      : weight({channels}, Init::one()), bias({channels}, Init::zero()), groups(groups_), epsilon(epsilon_) {}

  Tensor moments(const Tensor& x) const;
  /// Then SiLU if asked for; takes x's memory if nobody else holds it.
  Tensor apply(Tensor x, const Tensor& moments, bool silu) const;
  Tensor forward(Tensor x, bool silu) const {
    const Tensor own = moments(x);
    return apply(std::move(x), own, silu);
  }

  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    visitor(prefix + "weight", weight);
    visitor(prefix + "bias", bias);
  }

  Parameter weight, bias;
  int64_t groups = 32;
  float epsilon = 1e-6f;
};

}  // namespace linnet::nn
