// Weights in another type, by other names, in another kind of file. Nothing is read to compose them; they are
// written tensor by tensor, so that no more than the largest of them is in memory at a time.
#pragma once

#include "models/dit.h"
#include "store/weights.h"

namespace linnet {

/// Whose names a file's tensors have: facebookresearch/DiT's (and LiT's), or diffusers'.
enum class Names : uint8_t { original, diffusers };

/// "original" or "diffusers"; throws UsageError on others.
Names names_from_name(std::string_view name);

/// The same weights in a floating-point type. Reading one throws Error naming the tensor when a number is too
/// large for that type.
Weights in_dtype(const Weights& weights, DType dtype);
/// The same weights, of which the matrices of the model's blocks are in 8 bits and the rest is as it was.
/// Reading one throws Error naming the tensor when a number is not finite.
Weights in_8_bits(const Weights& weights, const nn::ParameterList& model);
/// The same weights with all that has more than one dimension in a floating-point type, but for what is in 8
/// bits; vectors stay as they are.
Weights with_matrices_in(const Weights& weights, DType dtype);

/// The learned tensors of a model (all_parameters) with the original's names, in the model's order, scales of
/// 8-bit matrices behind them, and its positions if they are wanted: the file's own, or for want of these the
/// model's.
Weights weights_of_model(const Weights& weights, const nn::ParameterList& model, bool with_positions);

/// Called before each tensor is read; what it throws ends the writing, of which nothing is left then.
using OnTensor = std::function<void(const Weights::Item&)>;

/// As one safetensors file with that metadata, written atomically.
void save_weights(const std::filesystem::path& path, const Weights& weights,
                  const std::map<std::string, std::string>& metadata, const OnTensor& on_tensor = {});

/// Throws UsageError when something is there, where a folder is to be written.
void check_absent(const std::filesystem::path& path);

/// As the folder that diffusers' DiTTransformer2DModel.from_pretrained opens: config.json beside
/// diffusion_pytorch_model.safetensors. It must not be there, or be empty but for what a kill has left of the
/// same work, and the folder above it must be there: throws UsageError or Error. Whatever fails, all is
/// afterwards as it was before.
void save_diffusers_folder(const std::filesystem::path& folder, const Weights& weights, const DiTConfig& config,
                           const std::map<std::string, std::string>& metadata, const OnTensor& on_tensor = {});

}  // namespace linnet
