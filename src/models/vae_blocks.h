// What the autoencoder is built of. A block that works on a large picture can do so in bands of rows: each band
// is computed anew from what lies below it, so that of all layers in between only bands are ever in memory; the
// norms take their moments from the whole picture in a pass of its own. Nothing is approximated.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "nn/conv2d.h"

namespace linnet::vae {

/// A picture (1, height, width, channels) that is computed when it is asked for, some rows at a time.
struct RowSource {
  Shape shape;
  DType dtype;
  std::function<Tensor(int64_t begin, int64_t end)> rows;

  static RowSource of(const Tensor& picture);
};

class ResnetBlock {
 public:
  ResnetBlock(int64_t in, int64_t out, int64_t groups);

  /// x (n, h, w, in) → (n, h, w, out).
  Tensor forward(Tensor x) const;
  /// The same of one picture, in bands; besides x only the result and some bands are in memory.
  Tensor forward_in_bands(const RowSource& x) const;
  /// Likewise, the result taking x's memory; only of a block that has as many channels after as before. What
  /// lies between the norms is kept if it and x are within `memory` bytes, else computed twice.
  Tensor forward_in_place(Tensor x, size_t memory) const;

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);

 private:
  RowSource middle(const RowSource& x) const;  // what lies between the norms
  Tensor normalised_rows(const RowSource& middle, const Tensor& moments, int64_t begin, int64_t end,
                         ops::ConvWindow& window) const;

  nn::GroupNorm norm1_, norm2_;
  nn::Conv2d conv1_, conv2_;
  std::optional<nn::Conv2d> shortcut_;
};

/// Softmax attention of one head over all pixels.
class AttentionBlock {
 public:
  AttentionBlock(int64_t channels, int64_t groups);

  Tensor forward(Tensor x) const;
  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);

 private:
  nn::GroupNorm norm_;
  nn::Conv2d q_, k_, v_, out_;
};

/// Where both halves meet: a residual block, attention, a residual block.
class MidBlock {
 public:
  MidBlock(int64_t channels, int64_t groups, bool attention);

  Tensor forward(Tensor x) const;
  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);

 private:
  std::vector<ResnetBlock> resnets_;
  std::optional<AttentionBlock> attention_;
};

/// x enlarged.
RowSource upsampled(const RowSource& x, const nn::UpsampleConv& conv);
/// conv(silu(norm(x))), of x's size, in another type if asked for.
RowSource normalised_conv(const RowSource& x, const nn::GroupNorm& norm, const Tensor& moments,
                          const nn::Conv2d& conv, DType out_dtype);
/// A norm's moments over all rows.
Tensor moments_of(const RowSource& x, const nn::GroupNorm& norm);
/// All rows.
Tensor gather(const RowSource& x);

}  // namespace linnet::vae
