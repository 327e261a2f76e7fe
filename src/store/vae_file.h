// Autoencoders on disk, as people have them: a diffusers folder (or a whole pipeline's, with the autoencoder in
// "vae"), a single file by diffusers' names, or one by the names of latent diffusion's own code, alone or
// inside a checkpoint of Stable Diffusion.
#pragma once

#include <filesystem>
#include <memory>

#include "models/vae.h"
#include "store/weights.h"

namespace linnet {

/// f32, frozen, mapped from the file. Without a config.json sizes are told by names and shapes, and what they
/// do not tell is as in Stable Diffusion: 32 groups, a scaling factor of 0.18215, or SDXL's within a checkpoint
/// of it. Throws Error naming file and tensor when it is no AutoencoderKL, or one that does not fit its
/// configuration, or without one has not 4 latent channels.
std::unique_ptr<Vae> load_vae(const std::filesystem::path& path);
/// A sentence that the scaling factor is assumed, where it is; else empty.
std::string note_on_scaling(const std::filesystem::path& path);
/// The same of weights that find_vae_weights gave.
bool scaling_is_assumed(const Weights& weights);

/// True if there is an autoencoder among a file's weights.
bool holds_vae(const Weights& file);

/// The autoencoder among a file's weights, by the names of today's diffusers; attention's projections as 1×1
/// convolutions. Throws Error when there is none.
Weights find_vae_weights(const Weights& file);

/// The configuration alone, of weights that find_vae_weights gave.
VaeConfig read_vae_config(const Weights& weights);

}  // namespace linnet
