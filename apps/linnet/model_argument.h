// What several verbs take in the same way: a model, a type for products, a number of threads.
#pragma once

#include "arguments.h"
#include "io/tokenizer.h"
#include "models/dit.h"
#include "models/pixart.h"
#include "models/t5.h"
#include "store/weights.h"

namespace linnet::app {

/// The name of the text-to-image model inside the program, and of its text encoder and its tokenizer.
inline constexpr const char* builtin_text = "builtin-text";

inline bool is_builtin(std::string_view model) { return model == "builtin" || model == builtin_text; }

/// All that a file or folder holds, or a model inside the program if it is "builtin" or "builtin-text".
Weights open_file(const std::string& model);
/// Of a folder or a file, or those inside the program; choice is "ema" or "raw".
std::unique_ptr<T5Encoder> open_text_encoder(const std::filesystem::path& path, const std::string& choice);
Tokenizer open_tokenizer(const std::filesystem::path& path);
/// Adds --weights, the choice.
void add_weights_option(const Verb& verb, std::string& choice);
/// check_keeps of a model's file, or of the weights and the tokenizer in its folder.
void check_keeps_model(const std::filesystem::path& output, const std::string& model);
/// Says it where the scaling of an autoencoder's latents is assumed (note_on_scaling).
void say_scaling(const std::filesystem::path& vae);
/// The same where the pipeline's scheduler asks for what the samplers do not do (note_on_scheduler).
void say_scheduler(const Weights& file);
/// "builtin", or the file's name without its folder, in UTF-8; to be shown by printable().
std::string short_name(const std::string& model);

/// Adds --dtype, a name for DiT::product_dtype_from_name.
void add_dtype_option(const Verb& verb, std::string& dtype);

/// Adds --threads; use_threads() applies it (0: all).
void add_threads_option(const Verb& verb, int& threads);
void use_threads(int threads);

/// "products in bf16 (oneDNN 2.6.3, avx512_core_bf16)", "products in bf16 (cuBLASLt 13.0.2, NVIDIA H100)"
std::string describe_products(DType dtype, const Device& device = {});

/// What has linear attention of any kind is called a LiT:
/// "LiT (mixer lit), 5 blocks, width 192, 3 heads, 64 tokens", and of a published size "LiT-XL/2 (mixer ...".
std::string describe_model(const DiTConfig& config);
/// "LiT text-to-image (mixer lit), 28 blocks, width 1152, 2 heads, made for latents of 128 x 128"
std::string describe_model(const PixArtConfig& config);
/// "3.54 M"
std::string in_millions(int64_t count);
/// "14.2 MB"
std::string in_bytes(size_t bytes);
/// The tensors' element types, each once: {"f32", "i64"}.
std::vector<std::string> types_of(const Weights& weights);

}  // namespace linnet::app
