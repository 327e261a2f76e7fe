// linnet forward: one pass of a model on tensors from a file.
#include "pipeline/forward.h"

#include <fmt/format.h>

#include "device_argument.h"
#include "io/text.h"
#include "model_argument.h"
#include "ops/matmul.h"
#include "store/dit_file.h"
#include "store/inception_file.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"
#include "store/transformer_file.h"
#include "store/vae_file.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string model, input, output, dtype = "f32", device = "cpu", weights = "ema", part = "transformer";
  int threads = 0;
};

void write(const Options& options, const NamedTensors& tensors, DType dtype) {
  write_safetensors(options.output, tensors);
  std::vector<std::string> written;
  for (const auto& [name, tensor] : tensors) written.push_back(name + " " + to_string(tensor.shape()));
  fmt::print("{}; {}: {}\n", fmt::join(written, ", "),
             describe_products(dtype, device_from_name(options.device)), options.output);
}

void run_inception(const Options& options) {
  const LoadedInception inception = load_inception(options.model, open_device(options.device));
  write(options, inception_file(*inception.model, SafetensorsFile::open(options.input), inception.device),
        DType::f32);
}

void run_vae(const Options& options) {
  const bool encoder = options.part == "vae.encoder";
  if (!encoder && options.part != "vae.decoder")
    throw UsageError(
        fmt::format("--part is transformer, vae.encoder, vae.decoder, text_encoder or inception, not \"{}\"",
                    printable(options.part)));
  const Device device = open_device(options.device);
  const DType dtype = ops::product_dtype_from_name(options.dtype, device);
  if (dtype == DType::i8) throw UsageError("an autoencoder works in f32 or bf16, not in 8 bits");
  const std::unique_ptr<Vae> vae = load_vae(options.model);
  vae->set_product_dtype(dtype);
  nn::move_to(*vae, device);
  const auto input = SafetensorsFile::open(options.input);
  write(options, encoder ? encode_file(*vae, input, device) : decode_file(*vae, input, device), dtype);
}

void run_text_encoder(const Options& options) {
  const std::unique_ptr<T5Encoder> encoder = load_t5(options.model, choice_from_name(options.weights));
  const Device device = open_device(options.device);
  const DType dtype = ops::product_dtype_from_name(options.dtype, device);
  encoder->set_product_dtype(dtype);
  nn::move_to(*encoder, device);
  write(options, text_file(*encoder, SafetensorsFile::open(options.input)), dtype);
}

template <class Model>
void run_transformer(const Options& options, Model& model) {
  const Device device = open_device(options.device);
  const DType dtype = model.product_dtype_from_name(options.dtype, device);
  model.set_product_dtype(dtype);
  nn::freeze(model);
  nn::move_to(model, device);
  write(options, {{"out", forward_file(model, SafetensorsFile::open(options.input), device)}}, dtype);
}

void run(const Options& options) {
  check_writable(options.output);
  check_keeps(options.output, options.input);
  check_keeps_model(options.output, options.model);
  use_threads(options.threads);
  if (options.part == "inception") return run_inception(options);
  if (options.part == "text_encoder") return run_text_encoder(options);
  if (options.part != "transformer") return run_vae(options);
  const Choice choice = choice_from_name(options.weights);
  const Weights file = open_file(options.model);
  if (holds_pixart(file, choice))
    run_transformer(options, *load_pixart(find_pixart_weights(file, choice)).model);
  else
    run_transformer(options, *load_dit(find_dit_weights(file, choice)).model);
}

}  // namespace

void add_forward(const Verb& app) {
  const Verb verb = app.add_subcommand("forward", "Run a model once on tensors from a file");
  auto options = std::make_shared<Options>();
  verb.add_option("model", options->model, "Model file or folder, or builtin").required();
  verb.add_option(
          "input", options->input,
          "Safetensors file with x (n, c, h, w), timesteps t (n) and classes y (n), or text (n, tokens, d) "
          "and text_mask (n, tokens) of a text-to-image model; with sample (n, c, "
          "height, width) in -1..1 for vae.encoder and inception; with latent (n, c, h, w), not scaled, for "
          "vae.decoder; with input_ids and attention_mask (n, tokens) for text_encoder")
      .required();
  verb.add_option("-o,--output", options->output,
                  "Safetensors file to write: out (n, c or 2c, h, w); mean and logvar; sample; "
                  "last_hidden_state; features by name")
      .required()
      .type_name("FILE");
  verb.add_option("--part", options->part,
                  "What to run: transformer, vae.encoder, vae.decoder, text_encoder or inception")
      .capture_default_str()
      .type_name("NAME");
  add_dtype_option(verb, options->dtype);
  add_device_option(verb, options->device);
  add_weights_option(verb, options->weights);
  add_threads_option(verb, options->threads);
  verb.callback([options] { run(*options); });
}

}  // namespace linnet::app
