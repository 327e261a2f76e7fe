// linnet forward: one pass of a model on tensors from a file.
#include "pipeline/forward.h"

#include <fmt/format.h>

#include "model_argument.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string model, input, output, dtype = "f32", weights = "ema";
  int threads = 0;
};

void run(const Options& options) {
  check_writable(options.output);
  use_threads(options.threads);
  const LoadedModel loaded = load_model(open_weights(options.model, options.weights));
  const DType dtype = loaded.model->product_dtype_from_name(options.dtype);
  loaded.model->set_product_dtype(dtype);
  nn::freeze(*loaded.model);
  const Tensor out = forward_file(*loaded.model, SafetensorsFile::open(options.input));
  write_safetensors(options.output, {{"out", out}});
  fmt::print("out {}; {}: {}\n", to_string(out.shape()), describe_products(dtype), options.output);
}

}  // namespace

void add_forward(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("forward", "Run a model once on tensors from a file");
  auto options = std::make_shared<Options>();
  verb->add_option("model", options->model, "Model file, or builtin")->required();
  verb->add_option("input", options->input,
                   "Safetensors file with x (n, c, h, w), timesteps t (n) and classes y (n)")
      ->required();
  verb->add_option("-o,--output", options->output, "Safetensors file to write: out (n, c or 2c, h, w)")
      ->required()
      ->type_name("FILE");
  add_dtype_option(*verb, options->dtype);
  add_weights_option(*verb, options->weights);
  add_threads_option(*verb, options->threads);
  verb->callback([options] { run(*options); });
}

}  // namespace linnet::app
