// DiT and LiT checkpoints of others: the names that diffusers gives the weights, and the configuration that
// names and shapes tell.
#pragma once

#include "models/dit.h"
#include "store/weights.h"

namespace linnet {

/// True if the weights have the names of a DiT or LiT, as the original calls them.
bool looks_like_dit(const Weights& weights);

/// True if the weights have the names of diffusers' DiTTransformer2DModel.
bool has_diffusers_names(const Weights& weights);

/// The same weights by the original's names; q, k and v joined, the embedders that every block repeats taken
/// from the first. Throws Error naming a tensor that is missing or has no place.
Weights with_original_names(const Weights& weights);
/// The other way, without the positions, which diffusers computes. Throws UsageError when diffusers has no such
/// model: it has softmax attention only, and an MLP of four times the width.
Weights with_diffusers_names(const Weights& weights, const DiTConfig& config);
/// The "config.json" that belongs to them: the arguments of DiTTransformer2DModel.
std::string diffusers_config(const DiTConfig& config);

/// The configuration of weights with the original's names: sizes from shapes, the mixer from the attention's
/// names. What these do not tell: the heads of an attention without a convolution, the size of the input where
/// neither pos_embed nor focused attention's positions are there, and which activation focused attention has.
/// They are taken from a folder's config.json, else as published for this width (or one head for every 64
/// channels), as 32, and as ReLU. Throws Error naming the tensor that fits no DiT.
DiTConfig infer_dit_config(const Weights& weights);

}  // namespace linnet
