// linnet convert: a model's weights in another kind of file, by other names, in another type.
#include "store/convert.h"

#include <fmt/format.h>

#include "interrupt.h"
#include "io/file.h"
#include "io/text.h"
#include "model_argument.h"
#include "store/dit_file.h"
#include "store/metadata.h"
#include "store/pixart_file.h"
#include "store/transformer_file.h"
#include "terminal.h"
#include "verbs.h"

namespace linnet::app {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model, output, dtype, names = "original", weights = "ema";
  bool no_positions = false;
};

// None: each tensor keeps its own.
std::optional<DType> storage_dtype(const std::string& name) {
  if (name.empty()) return std::nullopt;
  if (name == "int8") return DType::i8;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32})
    if (name_of(dtype) == name) return dtype;
  throw UsageError(fmt::format("--dtype is bf16, f16, f32 or int8, not \"{}\"", printable(name)));
}

// True if the output is a folder as diffusers has it, false if it is one file.
bool is_folder(const Options& options, Names names) {
  const bool file = fs::path(options.output).extension() == ".safetensors";
  if (!file && names == Names::original)
    throw UsageError(fmt::format("weights are written as safetensors: \"{}\" must end in .safetensors",
                                 printable(options.output)));
  return !file;
}

// What a file says of itself goes on, except how it was made of others.
std::map<std::string, std::string> metadata_for(const Weights& weights, const std::string& config,
                                                Names names) {
  auto metadata = weights.metadata();
  std::erase_if(metadata, [](const auto& entry) { return entry.first.starts_with("folder."); });
  for (const char* key : {checkpoint_key, training_key, pictures_key, "format"}) metadata.erase(key);
  metadata[config_key] = config;
  if (names == Names::diffusers) metadata["format"] = "pt";  // without which diffusers refuses a file
  return metadata;
}

// The bar, and the good moment to stop.
OnTensor watch(Progress& progress, const Weights& weights) {
  return [&progress, all = weights.bytes(), done = size_t{0}](const Weights::Item& item) mutable {
    end_if_interrupted();
    progress.show(static_cast<double>(done), static_cast<double>(all),
                  fmt::format("{} of {}", in_bytes(done), in_bytes(all)));
    done += item.bytes();
  };
}

// What is written, and what it is of.
struct Conversion {
  Weights from, to;
  std::string config, description;
  int64_t parameters = 0;
  std::optional<DiTConfig> dit;  // none: a text-to-image transformer, which has original names only
};

Conversion of_dit(const Options& options, const Weights& file, std::optional<DType> dtype, Names names) {
  const Weights original = find_dit_weights(file, choice_from_name(options.weights));
  const DiTConfig config = read_dit_config(original);
  read_class_names(original, config.num_classes);
  DiT model(config);
  const nn::ParameterList parameters = nn::all_parameters(model);
  check_parameters(parameters, original);
  Weights weights = weights_of_model(original, parameters, !options.no_positions);
  if (names == Names::diffusers) weights = with_diffusers_names(with_float_matrices(weights), config);
  if (dtype) weights = *dtype == DType::i8 ? in_8_bits(weights, parameters) : in_dtype(weights, *dtype);
  return {original, weights, to_json(config), describe_model(config), nn::count_parameters(model), config};
}

Conversion of_pixart(const Options& options, const Weights& file, std::optional<DType> dtype, Names names) {
  if (names == Names::diffusers)
    throw UsageError("a text-to-image transformer is written with original names (--names original)");
  const Weights original = find_pixart_weights(file, choice_from_name(options.weights));
  const PixArtConfig config = read_pixart_config(original);
  PixArt model(config);
  const nn::ParameterList parameters = nn::all_parameters(model);
  check_parameters(parameters, without_positions(original));
  Weights weights = weights_of_model(original, parameters, false);
  if (dtype) weights = *dtype == DType::i8 ? in_8_bits(weights, parameters) : in_dtype(weights, *dtype);
  return {original, weights, to_json(config), describe_model(config), nn::count_parameters(model), {}};
}

void write(const Options& options, const Conversion& conversion, Names names) {
  const auto metadata = metadata_for(conversion.to, conversion.config, names);
  catch_interrupts();
  Progress progress;
  const OnTensor on_tensor = watch(progress, conversion.to);
  if (is_folder(options, names))
    save_diffusers_folder(options.output, conversion.to, *conversion.dit, metadata, on_tensor);
  else
    save_weights(options.output, conversion.to, metadata, on_tensor);
}

std::string describe_file(const Weights& file, const Weights& model) {
  std::string text = file.container();
  if (!model.part().empty()) text += fmt::format(", \"{}\" of it", model.part());
  const bool theirs = has_diffusers_names(file) || has_diffusers_pixart_names(file);
  return fmt::format("{}, {} names, {}", text, theirs ? "diffusers'" : "original",
                     fmt::join(types_of(model), " and "));
}

void run(const Options& options) {
  const std::optional<DType> dtype = storage_dtype(options.dtype);
  const Names names = names_from_name(options.names);
  if (names == Names::diffusers && dtype == DType::i8)
    throw UsageError(
        "diffusers does not read Linnet's weights in 8 bits: --dtype int8 goes with original names");
  if (!is_folder(options, names)) {
    check_writable(options.output);
    if (!is_builtin(options.model)) check_keeps_until_done(options.output, options.model);
  }
  const Weights file = open_file(options.model);
  const bool texts = holds_pixart(file, choice_from_name(options.weights));
  const Conversion made = texts ? of_pixart(options, file, dtype, names) : of_dit(options, file, dtype, names);
  write(options, made, names);

  fmt::print("from  {}: {}\n", printable(short_name(options.model)), describe_file(file, made.from));
  fmt::print("      {}; {} parameters\n", made.description, in_millions(made.parameters));
  fmt::print("to    {}: {}, {} names, {}; {} tensors, {}\n", printable(options.output),
             is_folder(options, names) ? "folder" : "safetensors",
             names == Names::diffusers ? "diffusers'" : "original", fmt::join(types_of(made.to), " and "),
             made.to.items().size(), in_bytes(made.to.bytes()));
  if (names == Names::diffusers)
    fmt::print(
        "diffusers spaces the frequencies of a timestep a little otherwise than DiT and Linnet do, and so "
        "paints otherwise;\nto have it the same, for every block b: "
        "b.norm1.emb.time_proj.downscale_freq_shift = 0\n");
  if (names == Names::diffusers && made.dit->prediction != Prediction::epsilon)
    fmt::print("it predicts {}, which diffusers' scheduler must be told: prediction_type=\"{}\"\n",
               name_of(made.dit->prediction),
               made.dit->prediction == Prediction::v ? "v_prediction" : "sample");
}

}  // namespace

void add_convert(const Verb& app) {
  const Verb verb = app.add_subcommand("convert", "Write a model as another kind of file, in another type");
  auto options = std::make_shared<Options>();
  verb.add_option("model", options->model,
                  "A DiT's, LiT's or PixArt's weights of any kind: safetensors, PyTorch, a folder; or builtin")
      .required();
  verb.add_option(
          "-o,--output", options->output,
          "Safetensors file to write; with --names diffusers also a new folder, for its from_pretrained")
      .required()
      .type_name("FILE");
  verb.add_option(
          "--dtype", options->dtype,
          "Type of the weights: bf16, f16, f32, or int8: the blocks' matrices in 8 bits (default: as they are)")
      .type_name("NAME");
  verb.add_option("--names", options->names,
                  "Whose names the tensors get: original (DiT's, LiT's) or diffusers")
      .capture_default_str()
      .type_name("NAME");
  add_weights_option(verb, options->weights);
  verb.add_flag("--no-positions", options->no_positions,
                "Leave out pos_embed, which Linnet computes but DiT's own code wants");
  verb.footer("linnet convert DiT-XL-2-256x256.pt -o dit.safetensors --dtype bf16");
  verb.callback([options] { run(*options); });
}

}  // namespace linnet::app
