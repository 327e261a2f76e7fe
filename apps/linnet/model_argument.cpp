#include "model_argument.h"

#include "builtin/builtin_model.h"
#include "core/parallel.h"
#include "io/file.h"
#include "io/text.h"
#include "ops/matmul.h"
#include "store/folder_config.h"
#include "store/t5_file.h"
#include "store/vae_file.h"
#include "train/open_model.h"

namespace linnet::app {

Weights open_file(const std::string& model) { return open_file_or_builtin(model); }

std::unique_ptr<T5Encoder> open_text_encoder(const std::filesystem::path& path, const std::string& choice) {
  return path == builtin_text ? load_t5(Weights::of(builtin_text_encoder()))
                              : load_t5(path, choice_from_name(choice));
}

Tokenizer open_tokenizer(const std::filesystem::path& path) {
  return path == builtin_text ? Tokenizer::from_bytes(builtin_tokenizer(), builtin_text)
                              : Tokenizer::open(path);
}

void add_weights_option(const Verb& verb, std::string& choice) {
  verb.add_option("--weights", choice,
                  "Of a training checkpoint: ema, the moving average where there is one, or raw")
      .capture_default_str()
      .type_name("NAME");
}

void check_keeps_model(const std::filesystem::path& output, const std::string& model) {
  if (is_builtin(model)) return;
  check_keeps(output, model);
  for (const char* part : {"", "transformer", "text_encoder", "tokenizer", "vae"}) {
    std::error_code ignored;
    for (const auto& entry :
         std::filesystem::directory_iterator(std::filesystem::path(model) / part, ignored)) {
      const std::string name = entry.path().filename().string();
      if (is_named_as_weights(name) || name == "spiece.model") check_keeps(output, entry.path());
    }
  }
}

void say_scaling(const std::filesystem::path& vae) {
  if (const std::string note = note_on_scaling(vae); !note.empty()) fmt::print("{}\n", note);
}

void say_scheduler(const Weights& file) {
  if (const std::string note = note_on_scheduler(file); !note.empty())
    fmt::print("{}: its scheduler {}\n", file.source(), note);
}

std::string short_name(const std::string& model) {
  if (is_builtin(model)) return model;
  const std::string name = path_of_folder(std::filesystem::path(model).lexically_normal()).filename().string();
  return is_utf8(name) ? name : printable(name);  // no picture's entries hold bytes that are not
}

void add_dtype_option(const Verb& verb, std::string& dtype) {
  verb.add_option(
          "--dtype", dtype,
          "Type of products: f32, bf16, int8 (matrices rounded to 8 bits, on a CPU tokens too), on a "
          "GPU also f16 and tf32, or auto: int8 if the file's weights are, else what the device does fastest "
          "of the others")
      .capture_default_str()
      .type_name("NAME");
}

void add_threads_option(const Verb& verb, int& threads) {
  verb.add_option("--threads", threads, "Threads to work on; 0: all").capture_default_str();
}

void use_threads(int threads) {
  if (threads < 0 || threads > 1024)
    throw UsageError(fmt::format("--threads lies in 0..1024, not {}", threads));
  if (threads > 0) set_threads(threads);
}

std::string describe_products(DType dtype, const Device& device) {
  return fmt::format("products in {} ({})", ops::name_of_products(dtype, device),
                     ops::matmul_engine_name(device));
}

std::string describe_model(const DiTConfig& config) {
  const std::string size = size_name(config);
  return fmt::format("{}{}{} (mixer {}), {}, width {}, {}, {} tokens",
                     config.mixer == nn::Mixer::softmax ? "DiT" : "LiT", size.empty() ? "" : "-", size,
                     nn::name_of(config.mixer), counted(config.depth, "block"), config.hidden_size,
                     counted(config.num_heads, "head"), config.tokens());
}

std::string describe_model(const PixArtConfig& config) {
  const std::string square = fmt::format("{0} x {0}", config.sample_size);
  const std::string size = config.in_channels == 3 ? square + " pixels" : "latents of " + square;
  return fmt::format("{} text-to-image (mixer {}), {}, width {}, {}, made for {}",
                     config.mixer == nn::Mixer::softmax ? "PixArt" : "LiT", nn::name_of(config.mixer),
                     counted(config.depth, "block"), config.hidden_size, counted(config.num_heads, "head"),
                     size);
}

std::string in_millions(int64_t count) { return fmt::format("{:.2f} M", static_cast<double>(count) * 1e-6); }

std::string in_bytes(size_t bytes) {
  const auto count = static_cast<double>(bytes);
  if (count < 1e6) return fmt::format("{:.1f} kB", count * 1e-3);
  return count < 1e9 ? fmt::format("{:.1f} MB", count * 1e-6) : fmt::format("{:.2f} GB", count * 1e-9);
}

std::vector<std::string> types_of(const Weights& weights) {
  std::vector<std::string> types;
  for (const Weights::Item& item : weights.items()) {
    const std::string type = item.dtype ? std::string(name_of(*item.dtype)) : printable(item.dtype_name);
    if (std::ranges::find(types, type) == types.end()) types.push_back(type);
  }
  return types;
}

}  // namespace linnet::app
