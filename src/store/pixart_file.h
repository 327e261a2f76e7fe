// PixArt's and LiT's text-to-image transformers on disk: the original's .pth, diffusers' folder (or a
// pipeline's, with the transformer in "transformer"), and Linnet's own files.
#pragma once

#include <filesystem>
#include <memory>

#include "models/pixart.h"
#include "store/weights.h"

namespace linnet {

/// True if the weights are those of a text-to-image transformer by diffusers' names.
bool has_diffusers_pixart_names(const Weights& weights);
/// True if they are by the original's or by diffusers' names.
bool looks_like_pixart(const Weights& weights);

/// The transformer among a file's weights, by the original's names. Throws Error naming a tensor that is
/// missing or has no place.
Weights find_pixart_weights(const Weights& file, Choice choice = Choice::ema);
/// The same without the original's "pos_embed", of which nothing but its shape is wanted (it tells the size):
/// the model computes its positions.
Weights without_positions(const Weights& weights);

/// The configuration that the file states, else what names and shapes tell. What these do not tell is as
/// published: 300 tokens of text, or 120 of a model with micro-conditions; 1024 pixels; 72 channels a head of
/// softmax attention, two heads of a linear one. Keys and values are compressed where there is a convolution
/// for it: the original's other ways to do it have no weights, and nothing tells of them.
PixArtConfig read_pixart_config(const Weights& weights);

struct LoadedPixArt {
  std::unique_ptr<PixArt> model;
  std::map<std::string, std::string> metadata;
};
/// Mapped from the file. Throws Error naming file and tensor when one is missing, left over or of another
/// shape.
LoadedPixArt load_pixart(const Weights& weights);
LoadedPixArt load_pixart(const std::filesystem::path& path, Choice choice = Choice::ema);

/// Writes atomically and tensor by tensor; weights in dtype (f32, bf16 or f16; in 8 bits what is). `extra`
/// joins the metadata.
void save_pixart(const std::filesystem::path& path, PixArt& model, DType dtype,
                 const std::map<std::string, std::string>& extra = {});

}  // namespace linnet
