// T5 text encoders on disk: a folder as the Hub lays it out (or a pipeline's, with the encoder in
// "text_encoder"), in one file or many, or a single file; whole T5 models, of which the encoder is taken.
#pragma once

#include <filesystem>
#include <memory>

#include "models/t5.h"
#include "store/weights.h"

namespace linnet {

/// Frozen, mapped from the files; matrices may be in 8 bits. Throws Error naming file and tensor when it is no
/// T5 encoder of version 1.1 or later. choice is as find_t5_weights takes it.
std::unique_ptr<T5Encoder> load_t5(const std::filesystem::path& path, Choice choice = Choice::ema);
std::unique_ptr<T5Encoder> load_t5(const Weights& file, Choice choice = Choice::ema);

/// True if there is a T5 encoder among a file's weights.
bool holds_t5(const Weights& file);

/// The encoder among a file's weights, by transformers' names, the table of tokens under "shared.weight". Of
/// the two sets that Linnet's training checkpoint holds of an encoder that is trained along, the chosen one.
Weights find_t5_weights(const Weights& file, Choice choice = Choice::ema);

/// The "config.json" that transformers writes beside the weights.
std::string to_json(const T5Config& config);
/// Which encoder it is, by its configuration and quick_fingerprint(all_parameters(encoder)).
std::string quick_fingerprint(T5Encoder& encoder);
/// Writes folder/model.safetensors and config.json, each atomically; weights in dtype. The folder must be
/// there.
void save_t5(const std::filesystem::path& folder, T5Encoder& encoder, DType dtype);

/// The configuration, from names and shapes; the largest distance and the norms' epsilon, which these do not
/// tell, from a folder's config.json, else as published.
T5Config read_t5_config(const Weights& weights);

}  // namespace linnet
