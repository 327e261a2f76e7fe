// The focused feature map (FLatten Transformer, Han et al. 2023, arXiv 2308.00442, with focusing factor 3). It
// turns queries and keys to the axes that they lie nearest to, so that linear attention tells them apart.
//
//   u = x + position,  y = (act(u) + 1e-6) / softplus(scale),  x̂ = y³·‖y‖/‖y³‖
//
// The cube is of each channel, the norms are over the full width, before it is split into heads. With GELU (its
// exact form, torch.nn.GELU's) x̂ may be negative. linear_attention takes the result with FeatureMap::none.
#pragma once

#include "core/tensor.h"

namespace linnet::ops {

enum class FocusedActivation : uint8_t { relu, gelu };

/// x (batch, tokens, n ≥ width) f32 or bf16: the first width channels are mapped, those behind them (the values
/// behind keys) handed on. scale (1, 1, width) and, if defined, positions (1, tokens, width), f32. Returns x's
/// shape and type.
Tensor focused_map(const Tensor& x, const Tensor& scale, const Tensor& positions, FocusedActivation activation);

}  // namespace linnet::ops
