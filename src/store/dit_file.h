// DiT's and LiT's transformers on disk: the original's .pt, diffusers' folder, and Linnet's own files.
#pragma once

#include <filesystem>
#include <map>
#include <memory>

#include "models/dit.h"
#include "store/parameters.h"

namespace linnet {

/// True if the weights have the names of diffusers' DiTTransformer2DModel.
bool has_diffusers_names(const Weights& weights);
/// True if they have the names of a DiT or LiT, as the original calls them.
bool looks_like_dit(const Weights& weights);

/// The same weights by the original's names; q, k and v joined, the embedders that every block repeats taken
/// from the first. Throws Error naming a tensor that is missing or has no place.
Weights with_original_names(const Weights& weights);
/// The other way, without the positions, which diffusers computes. Throws UsageError when diffusers has no such
/// model: it has softmax attention only, and an MLP of four times the width.
Weights with_diffusers_names(const Weights& weights, const DiTConfig& config);
/// The "config.json" that belongs to them: the arguments of DiTTransformer2DModel.
std::string diffusers_config(const DiTConfig& config);

/// The transformer among a file's weights, by the original's names and without the optimiser's and others'.
Weights find_dit_weights(const Weights& file, Choice choice = Choice::ema);

/// The configuration that the file states, else what names and shapes tell.
DiTConfig read_dit_config(const Weights& weights);
/// The latter: sizes from shapes, the mixer from the attention's names. What these do not tell: the heads of an
/// attention without a convolution, the size of the input where neither pos_embed nor focused attention's
/// positions are there, and which activation focused attention has. They are taken from a folder's config.json,
/// else as published for this width (or one head for every 64 channels), as 32, and as ReLU. Throws Error
/// naming the tensor that fits no DiT.
DiTConfig infer_dit_config(const Weights& weights);

struct LoadedDiT {
  std::unique_ptr<DiT> model;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> class_names;  ///< by index; empty if the file names none
};
/// Mapped from the file. Throws Error naming file and tensor when one is missing, left over or of another
/// shape.
LoadedDiT load_dit(const Weights& weights);
LoadedDiT load_dit(const std::filesystem::path& path, Choice choice = Choice::ema);

inline std::string fingerprint(DiT& model) { return fingerprint(nn::learned_parameters(model)); }

/// Writes atomically and tensor by tensor; weights in dtype (f32, bf16 or f16; in 8 bits what is), positions
/// left out if with_positions is false. `extra` joins the metadata.
void save_dit(const std::filesystem::path& path, DiT& model, DType dtype,
              const std::map<std::string, std::string>& extra = {}, bool with_positions = true);

}  // namespace linnet
