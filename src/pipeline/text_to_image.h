// What everyone does who paints with a text-to-image model, the command and a program that embeds Linnet: parts
// that belong together, ready to paint, and requests that suit them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/paint_text.h"
#include "pipeline/text_encoding.h"
#include "store/bundle.h"

namespace linnet {

/// A loaded transformer that is to paint so many pictures at once, those for guidance included, of latents of
/// that size: products in that type, frozen, placed.
void make_ready(PixArt& model, DType products, const Device& device, int64_t pictures, int64_t height,
                int64_t width);

/// A loaded text encoder: its products are in the type that suits beside a transformer's that are named so
/// (ops::wide_product_dtype_from_name). Throws Error, naming the part by where it lies, unless the three belong
/// together.
void make_ready(T5Encoder& encoder, const Tokenizer& tokenizer, const TextToImageParts& parts,
                const PixArtConfig& transformer, std::string_view products, const Device& device);

/// Sampler, steps and guidance that suit a model, and clipping.
GenerateOptions usual_options(const PixArtConfig& model);

/// The size nearest to the wanted one that the model paints (snap_size()); its own if none is wanted. reduction
/// is how many pixels a side a value of its samples is. Throws UsageError on a size that no picture has.
SizeInPixels size_to_paint(const std::optional<SizeInPixels>& wanted, const PixArtConfig& model,
                           int64_t reduction);

/// What follows from the model and the size: that of the latents, and how many pictures at once. Throws
/// UsageError on what the model cannot paint (check_request()).
void complete(TextPaintRequest& request, const PixArtConfig& model, const SizeInPixels& size, int64_t reduction,
              bool with_negative);

/// Gives a request the states of its prompts, but for those that no picture shows, and, if it is guided, of
/// the negative one. on_block is called after every block of the encoder. Throws as tokenize() and
/// encode_each() do.
void encode_for(TextPaintRequest& request, std::vector<std::string> prompts, const std::string& negative,
                const T5Encoder& encoder, const Tokenizer& tokenizer, const PixArtConfig& model,
                const std::function<void()>& on_block = {});

}  // namespace linnet
