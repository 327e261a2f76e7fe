// What names and shapes tell of a transformer with the original's names, whichever it is.
#pragma once

#include <optional>

#include "nn/token_mixer.h"
#include "store/weights.h"

namespace linnet {

/// Of a tensor that must be there with so many dimensions.
const Shape& shape_of(const Weights& weights, std::string_view name, int rank);

/// How many tokens a side those positions (1, tokens, width) have.
int64_t side_of(const Weights& weights, std::string_view positions);

/// By the names of the first block's attention. focused_gelu has the names of focused, which it is taken for.
nn::Mixer mixer_of(const Weights& weights);

/// Heads of an attention with a convolution, whose filters are those of one head; of others nothing tells.
std::optional<int64_t> heads_of(const Weights& weights, int64_t width);

}  // namespace linnet
