// What linnet generate can be told, and what painting from classes and from texts have in common.
#pragma once

#include "generate_output.h"
#include "pipeline/sampling.h"
#include "store/weights.h"

namespace linnet::app {

struct PaintOptions : OutputOptions {
  std::string model = "builtin", weights = "ema", dtype = "auto", device = "cpu", vae, noise, seed;
  std::vector<std::string> classes;
  std::vector<std::string> prompts;
  std::string prompt_file, negative, text_encoder, tokenizer, size, cache, cleaning = "lower",
                                                                           unconditional = "text";
  std::string sampler, guided_channels, guided_interval, clip = "auto", time_grid = "rounded";
  std::optional<int64_t> count;
  std::optional<int> steps;
  std::optional<double> guidance_scale;
  int64_t batch = 0;
  int threads = 0;
};

/// A number, or one drawn anew for an empty text. Throws UsageError.
uint64_t seed_from(const std::string& text);

/// A folder can be gone on with, which a seed that is drawn anew could not: its own is 0.
uint64_t seed_of(const PaintOptions& options);

/// Sampler, steps, guidance, clipping and device as given, or as usual for this kind of model. Throws
/// UsageError, and Error when there is no such device.
GenerateOptions sampling_options(const PaintOptions& options, const GenerateOptions& usual);

/// The tensor "noise" of the file that --noise names, in f32; undefined without one. Throws Error when there is
/// none, or when it is not finite.
Tensor start_noise(const PaintOptions& options);

/// Which autoencoder decodes: the one given, or that of the model's own folder; empty if there is none.
std::filesystem::path vae_path(const PaintOptions& options);

/// What it does to samples; vae may be null and must outlive what is returned. memory as Vae::decode takes it.
PictureWriter::Decode decoder(const Vae* vae, size_t memory);

/// "16 pictures in 3.1 s, 194 ms each", and of a folder also how many were there.
std::string describe(const PictureWriter& writer, double seconds);

void paint_classes(const PaintOptions& options, const Weights& file);
void paint_texts(const PaintOptions& options, const Weights& file);

}  // namespace linnet::app
