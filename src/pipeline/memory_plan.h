// How much memory the stages of painting from texts take, and how they share what they may.
#pragma once

#include "models/dit.h"
#include "models/pixart.h"
#include "models/t5.h"
#include "models/vae.h"

namespace linnet {

/// What is painted at once.
struct StageSizes {
  int64_t pictures = 1;           ///< in a batch, those for guidance included
  int64_t height = 0, width = 0;  ///< of the latents
  int64_t text_tokens = 0;        ///< of all texts that are encoded together
  int64_t kept_tokens = 0;        ///< of all texts whose states stay in memory
  size_t made_weights = 0;        ///< bytes of the transformer's weights that cannot be mapped from its file
  DType products = DType::bf16;
  bool stored_in_8_bits = false;  ///< the transformer's matrices, in its file
};

/// Bytes that are in memory at most, from measurements where they cannot be counted: each a little too much.
struct StageMemory {
  size_t process = 0;       ///< before anything is loaded, and texts' states
  size_t text = 0;          ///< the encoder, of which there is one block at a time, and its activations
  size_t transformer = 0;   ///< packed weights and activations
  size_t vae = 0;           ///< its packed weights, and of its file what is packed together
  size_t decode_whole = 0;  ///< a picture's activations, if nothing limits them
  size_t decode_least = 0;  ///< in the narrowest bands

  /// The smallest amount in which every stage has its turn.
  size_t smallest() const;
  /// In which the transformer stays while the autoencoder decodes.
  size_t together() const { return process + transformer + vae + decode_whole; }
};

/// Bytes of a GPU that weights may take beside the activations of `tokens` (of all pictures at once, those for
/// guidance included) of that width, of which a recording has a copy of its own.
size_t room_for_weights(int64_t tokens, int64_t width);

/// A frozen model to a GPU, as much of it as there is room for beside the activations of so many pictures at
/// once, those for guidance included; nothing happens for the CPU. See nn/placement.h.
void place(DiT& model, const Device& device, int64_t pictures);
/// The same of latents of that size.
void place(PixArt& model, const Device& device, int64_t pictures, int64_t height, int64_t width);
/// The same of texts of so many tokens in all.
void place(T5Encoder& encoder, const Device& device, int64_t tokens);

/// vae: null where none decodes. Its parameters are looked at only.
StageMemory plan_memory(const T5Encoder& encoder, const PixArtConfig& transformer, Vae* vae,
                        const StageSizes& sizes);

}  // namespace linnet
