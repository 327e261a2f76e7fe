#include "nn/conv2d.h"

#include "ops/group_norm.h"
#include "ops/pixels.h"

namespace linnet::nn {
namespace {

// The 2×2 weights (out, in, 2, 2) with which the pixels in row 2i + row and column 2j + column of the enlarged
// picture look at the small one. Of the 3 rows above each other, the upper pixel's fall on rows i − 1, i, i;
// the lower one's on i, i, i + 1.
Tensor phase_weight(const Tensor& weight, int64_t row, int64_t column) {
  const int64_t filters = weight.size(0) * weight.size(1);
  Tensor result = Tensor::zeros({weight.size(0), weight.size(1), 2, 2});
  const Tensor plain = weight.host().to(DType::f32);
  const float* from = plain.data<float>();
  float* to = result.mutable_data<float>();
  const auto meets = [](int64_t tap, int64_t phase) {
    return (tap + 1 - phase) / 2;
  };  // upper: 0,1,1; lower: 0,0,1
  for (int64_t f = 0; f < filters; ++f, from += 9, to += 4)
    for (int64_t y = 0; y < 3; ++y)
      for (int64_t x = 0; x < 3; ++x) to[2 * meets(y, row) + meets(x, column)] += from[3 * y + x];
  return result;
}

}  // namespace

const ops::PackedConv& Conv2d::packed(DType dtype) const {
  check(weight.value.defined(), "a convolution has no weights yet");
  if (!packed_.defined() || packed_.dtype() != dtype)
    packed_ = ops::PackedConv(weight.value, bias.value, dtype);
  return packed_;
}

void UpsampleConv::pack(DType dtype) const {
  if (packed_[1][1].defined() && packed_[1][1].dtype() == dtype) return;  // the last that is made
  for (const int64_t row : {0, 1})
    for (const int64_t column : {0, 1})
      packed_[row][column] =
          ops::PackedConv(phase_weight(conv_.weight.value, row, column), conv_.bias.value, dtype);
}

Tensor UpsampleConv::forward(const Tensor& x, bool at_top, bool at_bottom) const {
  pack(x.dtype());
  const int64_t rows = x.size(1) - (at_top ? 0 : 1) - (at_bottom ? 0 : 1);
  check(rows > 0, "{} rows are too few to enlarge", x.size(1));
  Tensor result = Tensor::empty({x.size(0), 2 * rows, 2 * x.size(2), x.size(3)}, x.dtype(), x.device());
  for (const int64_t row : {0, 1}) {
    // The upper pixels look at the row above and not at the one below, the lower ones the other way.
    const int64_t above = !at_top && row == 1 ? 1 : 0, below = !at_bottom && row == 0 ? 1 : 0;
    const Tensor seen = ops::crop_rows(x, above, x.size(1) - below);
    for (const int64_t column : {0, 1}) {
      const ops::ConvWindow window{1, at_top ? 1 - row : 0, 1 - column, at_bottom ? row : 0, column};
      ops::interleave(packed_[row][column].apply(seen, window, x.dtype()), row, column, result);
    }
  }
  return result;
}

Tensor GroupNorm::moments(const Tensor& x) const { return ops::group_moments(x, groups); }

Tensor GroupNorm::apply(Tensor x, const Tensor& moments, bool silu) const {
  return ops::normalize_groups(std::move(x), moments, weight.value.to(DType::f32), bias.value.to(DType::f32),
                               epsilon, silu);
}

}  // namespace linnet::nn
