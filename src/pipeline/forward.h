// One pass of a model on tensors from a file: to compare with other implementations, and to look inside. The
// device is where the model lies; results are on the CPU.
#pragma once

#include "io/safetensors.h"
#include "models/dit.h"
#include "models/inception.h"
#include "models/pixart.h"
#include "models/t5.h"
#include "models/vae.h"

namespace linnet {

/// The model's output for the file's tensors x (n, c, h, w) of a floating-point type, t (n) floating-point or
/// i64, y (n) i64. Throws Error naming the tensor that is missing, of another shape or type, or out of range.
Tensor forward_file(const DiT& model, const SafetensorsFile& input, const Device& device = {});

/// The text-to-image transformer's, for x (n, c, h, w), t (n), text (n, tokens, caption channels) and text_mask
/// (n, tokens) i64, 1 where a token counts, or none if all do.
Tensor forward_file(const PixArt& model, const SafetensorsFile& input, const Device& device = {});

/// The autoencoder's: mean and logvar of tensor sample (n, c, height, width) in −1..1, and sample of tensor
/// latent (n, c, h, w), which is not scaled. Throws Error as forward_file does.
NamedTensors encode_file(const Vae& vae, const SafetensorsFile& input, const Device& device = {});
NamedTensors decode_file(const Vae& vae, const SafetensorsFile& input, const Device& device = {});
/// The text encoder's: last_hidden_state (n, tokens, width) of tensors input_ids (n, tokens) i64 and
/// attention_mask (n, tokens) i64, ones and then zeros, or none for whole texts. Where the mask is 0 the state
/// is 0: nothing is computed there.
NamedTensors text_file(const T5Encoder& encoder, const SafetensorsFile& input);
/// What Inception sees in tensor sample (n, 3, height, width) in −1..1: "64", "192", "768", "2048" and
/// "spatial", as FID and sFID take them, and "probabilities".
NamedTensors inception_file(const Inception& inception, const SafetensorsFile& input,
                            const Device& device = {});

}  // namespace linnet
