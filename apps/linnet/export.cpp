// linnet export: a model's weights alone, in the type they should ship in.
#include <fmt/format.h>

#include "model_argument.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string model, output, dtype = "bf16";
};

DType storage_dtype(const std::string& name) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32})
    if (name_of(dtype) == name) return dtype;
  throw UsageError(fmt::format("--dtype is bf16, f16 or f32, not \"{}\"", name));
}

void run(const Options& options) {
  const DType dtype = storage_dtype(options.dtype);
  check_writable(options.output);
  const LoadedModel loaded = load_model(open_weights(options.model));
  save_model(options.output, *loaded.model, dtype, loaded.metadata, false);
  fmt::print("{}; {} parameters in {}, {} bytes: {}\n", describe_model(loaded.model->config()),
             in_millions(nn::count_parameters(*loaded.model)), name_of(dtype),
             std::filesystem::file_size(options.output), options.output);
}

}  // namespace

void add_export(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("export", "Write a model's weights for shipping, without what can be computed");
  auto options = std::make_shared<Options>();
  verb->add_option("model", options->model, "Model file, or builtin")->required();
  verb->add_option("-o,--output", options->output, "Safetensors file to write")->required()->type_name("FILE");
  verb->add_option("--dtype", options->dtype, "Type of the weights: bf16, f16 or f32")
      ->capture_default_str()
      ->type_name("NAME");
  verb->callback([options] { run(*options); });
}

}  // namespace linnet::app
