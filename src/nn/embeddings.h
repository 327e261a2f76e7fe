// What a DiT is told besides the picture: where a token lies, which timestep, which class. Names and numerics
// are those of facebookresearch/DiT.
#pragma once

#include <map>
#include <tuple>

#include "nn/linear.h"

namespace linnet::nn {

/// Cuts a picture into patches and projects each: (batch, c, h, w) → (batch, tokens, width).
class PatchEmbed {
 public:
  PatchEmbed() = default;
  PatchEmbed(int64_t channels, int64_t patch, int64_t width);
  Tensor forward(const Tensor& x) const;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    proj.visit(prefix + "proj.", visitor);
  }

  Linear proj;  ///< weight (width, channels, patch, patch)
  int64_t patch = 0;
};

/// t (batch) → (batch, width): sinusoids of 256, Linear, SiLU, Linear.
class TimestepEmbedder {
 public:
  TimestepEmbedder() = default;
  explicit TimestepEmbedder(int64_t width, Init of_second = Init::normal(0.02f));
  Tensor forward(const Tensor& t) const;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    first.visit(prefix + "mlp.0.", visitor);
    second.visit(prefix + "mlp.2.", visitor);
  }

  Linear first, second;
};

/// Class index → vector; the row after the last class stands for "no class" when classes are dropped in
/// training.
class LabelEmbedder {
 public:
  LabelEmbedder() = default;
  LabelEmbedder(int64_t classes, bool null_class, int64_t width);
  Tensor forward(const Tensor& y) const;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) {
    visitor(prefix + "embedding_table.weight", table);
  }

  Parameter table;
};

/// Fixed positions (rows·columns, width): the first half of the channels from x, the second from y, each sines
/// then cosines of x·10000^(−2i/(width/2)). x and y count tokens, times row_unit and column_unit.
Tensor sincos_positions(int64_t rows, int64_t columns, int64_t width, double row_unit = 1,
                        double column_unit = 1);

/// The same, of one width, kept on the device that asks: a model computes the same few grids again and again.
class PositionCache {
 public:
  Tensor get(int64_t rows, int64_t columns, int64_t width, double row_unit, double column_unit,
             const Device& device);

 private:
  static constexpr size_t most = 8;
  std::map<std::tuple<int64_t, int64_t, int>, Tensor> grids_;  // by rows, columns and device
};

}  // namespace linnet::nn
