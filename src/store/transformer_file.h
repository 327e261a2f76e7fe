// Which transformer is in a file: a DiT, of classes (store/dit_file.h), or a PixArt, of texts
// (store/pixart_file.h).
#pragma once

#include "models/model_config.h"
#include "store/weights.h"

namespace linnet {

/// True if there is a PixArt among a file's weights.
bool holds_pixart(const Weights& file, Choice choice = Choice::ema);
/// True if there is a DiT among them, or a configuration and no PixArt: what is wrong with that is for load_dit
/// to say.
bool holds_dit(const Weights& file, Choice choice = Choice::ema);

/// Of either. Throws Error when the weights are neither's.
ModelConfig read_model_config(const Weights& file, Choice choice = Choice::ema);

}  // namespace linnet
