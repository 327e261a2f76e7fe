// linnet quantize: a text-to-image model and all that it needs as one folder that fits a laptop.
#include <fmt/format.h>

#include "interrupt.h"
#include "io/file.h"
#include "io/text.h"
#include "model_argument.h"
#include "store/bundle.h"
#include "store/metadata.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"
#include "terminal.h"
#include "verbs.h"

namespace linnet::app {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model, output, parts, text_encoder = "int8", transformer = "bf16", weights = "ema";
};

DType type_from(const std::string& name, const char* option) {
  if (name == "int8") return DType::i8;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32})
    if (name_of(dtype) == name) return dtype;
  throw UsageError(fmt::format("{} is int8, bf16, f16 or f32, not \"{}\"", option, printable(name)));
}

TextToImageParts find_parts(const Options& options) {
  const Weights file = Weights::open(options.model);
  const bool pixels = read_pixart_config(find_pixart_weights(file)).in_channels == 3;
  // Of a checkpoint its own, of the same weights as the transformer: what lies beside it is the average.
  const bool has_text_encoder = file.metadata().contains(checkpoint_key) && holds_t5(file);
  const auto part = [&](const char* name) {
    return part_in(options.parts.empty() ? options.model : options.parts, name,
                   "name the folder that does with --parts");
  };
  return {options.model, has_text_encoder ? fs::path(options.model) : part("text_encoder"), part("tokenizer"),
          pixels ? fs::path() : part("vae")};
}

uintmax_t bytes_in(const fs::path& folder) {
  uintmax_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) bytes += entry.file_size();
  return bytes;
}

void run(const Options& options) {
  const BundleTypes types{type_from(options.text_encoder, "--text-encoder-dtype"),
                          type_from(options.transformer, "--transformer-dtype")};
  const TextToImageParts parts = find_parts(options);
  const fs::path output = path_of_folder(options.output);
  check_absent(output);
  check_place_writable(output);
  catch_interrupts();
  {
    Progress progress;
    save_bundle(output, parts, types, choice_from_name(options.weights),
                [&](const std::string& tensor, size_t done, size_t all) {
                  end_if_interrupted();
                  forget_mapped_pages();  // of the tensors before
                  progress.show(static_cast<double>(done), static_cast<double>(all),
                                fmt::format("{} of {}, {}", in_bytes(done), in_bytes(all), printable(tensor)));
                });
  }
  const Weights transformer = Weights::open(output), text_encoder = Weights::open(output / "text_encoder");
  fmt::print("{}: {}\n  transformer: {}; text encoder: {}; {}\n", printable(output.string()),
             describe_model(read_pixart_config(find_pixart_weights(transformer))),
             fmt::join(types_of(transformer), ", "), fmt::join(types_of(text_encoder), ", "),
             in_bytes(bytes_in(output)));
}

}  // namespace

void add_quantize(const Verb& app) {
  const Verb verb = app.add_subcommand("quantize", "Make a text-to-image model one folder that fits a laptop");
  auto options = std::make_shared<Options>();
  verb.add_option("model", options->model, "PixArt or LiT: a pipeline's folder, or the transformer's file")
      .required();
  verb.add_option("-o,--output", options->output, "Folder to write, which must not be there")
      .required()
      .type_name("DIR");
  verb.add_option(
          "--parts", options->parts,
          "Folder that holds text_encoder, unless the model is the training checkpoint that it was trained "
          "along with, tokenizer and vae (default: the model's)")
      .type_name("DIR");
  verb.add_option("--text-encoder-dtype", options->text_encoder,
                  "Type of the text encoder's matrices: int8, bf16, f16 or f32")
      .capture_default_str()
      .type_name("NAME");
  verb.add_option("--transformer-dtype", options->transformer,
                  "Type of the transformer's matrices: bf16, int8, f16 or f32")
      .capture_default_str()
      .type_name("NAME");
  add_weights_option(verb, options->weights);
  verb.footer("linnet quantize PixArt-Sigma-XL-2-1024-MS -o pixart-laptop");
  verb.callback([options] { run(*options); });
}

}  // namespace linnet::app
