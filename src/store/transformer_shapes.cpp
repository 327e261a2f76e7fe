#include "store/transformer_shapes.h"

#include <cmath>

#include "io/text.h"

namespace linnet {
namespace {

constexpr const char* convolution = "blocks.0.attn.dwc.weight";

}  // namespace

const Shape& shape_of(const Weights& weights, std::string_view name, int rank) {
  const Shape& shape = weights.shape(name);
  check(shape.rank() == rank && shape.numel() > 0,
        "{}: tensor '{}' of shape {} is not what such a model has there", weights.source(), printable(name),
        to_string(shape));
  return shape;
}

int64_t side_of(const Weights& weights, std::string_view positions) {
  const int64_t tokens = shape_of(weights, positions, 3)[1];
  const auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(tokens))));
  check(side * side == tokens, "{}: {} has {} tokens, which make no square", weights.source(), positions,
        tokens);
  return side;
}

nn::Mixer mixer_of(const Weights& weights) {
  if (!weights.contains("blocks.0.attn.kv.weight")) return nn::Mixer::softmax;
  if (weights.contains("blocks.0.attn.scale")) return nn::Mixer::focused;
  return weights.contains(convolution) ? nn::Mixer::lit : nn::Mixer::linear;
}

std::optional<int64_t> heads_of(const Weights& weights, int64_t width) {
  if (!weights.contains(convolution)) return std::nullopt;
  return width / std::max<int64_t>(1, shape_of(weights, convolution, 4)[0]);
}

}  // namespace linnet
