// A text-to-image model and all that it needs in one folder, laid out as the Hub does it, in types that fit a
// laptop: what `linnet generate` runs without anything else.
#pragma once

#include "io/tokenizer.h"
#include "models/pixart.h"
#include "models/t5.h"
#include "store/convert.h"

namespace linnet {

/// Where the parts of a text-to-image model lie: folders or files. A model of pixels has no autoencoder.
struct TextToImageParts {
  std::filesystem::path transformer, text_encoder, tokenizer, vae;
};

/// The folder of that name in a text-to-image pipeline's. Throws UsageError, which advice ends, when there is
/// none: "name it with --vae".
std::filesystem::path part_in(const std::filesystem::path& folder, const char* name, std::string_view advice);

/// Both throw Error, with the given name of the part that does not fit: unless the text encoder's states are as
/// wide as the transformer takes, and unless it knows every piece of the tokenizer.
void check_belongs(const T5Config& text_encoder, const std::string& name, const PixArtConfig& transformer);
void check_belongs(const Tokenizer& tokenizer, const std::string& name, const T5Config& text_encoder);

struct BundleTypes {
  DType text_encoder = DType::i8;  ///< i8: its matrices; f32, bf16, f16: all of it that is no vector
  DType transformer = DType::bf16;
};

/// Called before each tensor with how many bytes are written of how many; what it throws ends the writing.
using OnBytes = std::function<void(const std::string& tensor, size_t done, size_t all)>;

/// Writes transformer/, text_encoder/, tokenizer/, vae/ and model_index.json into a folder that must not be
/// there, whose own folder must. Tensors are read, rounded and written one by one, so that the largest is all
/// that is in memory. It appears as a whole: until then it is "<folder>.partial", which is removed on any
/// failure and, after a kill, by the next call. choice is of those parts that are in Linnet's training
/// checkpoints. Throws Error naming the part that does not fit.
void save_bundle(const std::filesystem::path& folder, const TextToImageParts& parts, const BundleTypes& types,
                 Choice choice, const OnBytes& on_bytes = {});

}  // namespace linnet
