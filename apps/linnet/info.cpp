// linnet info: what a file is. Files may be anybody's, so every text from one is shown escaped.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "io/file.h"
#include "io/image.h"
#include "io/text.h"
#include "model_argument.h"
#include "pipeline/classes.h"
#include "pipeline/picture_text.h"
#include "store/dit_file.h"
#include "store/folder_config.h"
#include "store/metadata.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"
#include "store/transformer_file.h"
#include "store/vae_file.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string file, weights = "ema";
  std::optional<std::string> classes;  // those whose names hold it
  bool tensors = false;
};

void show(std::string_view name, const std::string& value) { fmt::print("  {:<14}{}\n", name, value); }

void show_picture(const std::string& path) {
  const Image image = read_image(path);
  const ImageNotes notes = read_image_notes(path);
  ImageText text = notes.text;
  const std::string again = command_of(text);
  fmt::print("{}, {}x{} pixels\n", to_string(notes.format), image.width, image.height);
  if (text.empty()) fmt::print("  says nothing about how it was made\n");
  for (const char* first :
       {"Software", "model", "model-hash", "class", "classes", "class-index", "count", "seed"})
    if (const auto entry = text.find(first); entry != text.end()) {
      show(entry->first, printable(entry->second, 2000));
      text.erase(entry);
    }
  for (const auto& [key, value] : text) show(printable(key), printable(value, 2000));
  if (!again.empty()) show("again", again);
}

// How many numbers are learned, of which types: "3.54 M in f32 (14.2 MB)".
std::string describe_parameters(const Weights& weights) {
  int64_t count = 0;
  size_t bytes = 0;
  for (const Weights::Item& item : weights.items()) {
    if (item.name == "pos_embed") continue;
    const bool scales = item.name.ends_with(scale_name("")) && item.shape.rank() > 1;
    count += scales ? 0 : item.shape.numel();
    bytes += item.bytes();
  }
  return fmt::format("{} in {} ({})", in_millions(count), fmt::join(types_of(weights), ", "), in_bytes(bytes));
}

std::string describe_classes(const Weights& weights, const DiTConfig& config) {
  const std::vector<std::string> names = read_class_names(weights, config.num_classes);
  if (names.empty() && !names_of_classes({}, config.num_classes).empty()) return "1000: ImageNet's";
  if (names.empty()) return fmt::format("{}, without names", config.num_classes);
  const size_t shown = std::min<size_t>(names.size(), 6);
  const std::string first = fmt::format("{}", fmt::join(std::span(names).first(shown), ", "));
  return fmt::format("{}: {}{}", names.size(), printable(first), shown < names.size() ? ", ..." : "");
}

std::string what_is_predicted(Prediction prediction) {
  switch (prediction) {
    case Prediction::v: return "v";
    case Prediction::x0: return "the picture";
    case Prediction::epsilon: break;
  }
  return "the noise";
}

void show_config(const DiTConfig& config) {
  show("pictures",
       fmt::format("{0}x{0} in {1} channels{2}, patches of {3}x{3}", config.input_size, config.in_channels,
                   config.in_channels == 3 ? "" : " (latents)", config.patch_size));
  show("cost", fmt::format("{:.3g} GMACs a picture and step", static_cast<double>(count_macs(config)) * 1e-9));
  show("guidance", config.null_class() ? "possible" : "not possible (classes were never dropped)");
  show("variance", config.learn_sigma ? "learned" : "fixed");
  show("predicts", what_is_predicted(config.prediction));
}

// "PyTorch, diffusers' names; its \"ema\", also there: \"model\""
std::string describe_file(const Weights& file, const Weights& model) {
  std::string text = file.container();
  if (has_diffusers_names(file) || has_diffusers_pixart_names(file)) text += ", diffusers' names";
  if (model.part().empty()) return text;
  std::vector<std::string> others;
  for (const Weights::Item& item : file.items()) {
    const std::string part = item.name.substr(0, item.name.find_first_of("/."));
    if (part != model.part() && std::ranges::find(others, part) == others.end()) others.push_back(part);
    if (others.size() == 8) break;  // a checkpoint has no more; a hostile file might
  }
  text += fmt::format(", weights \"{}\"", model.part());
  if (!others.empty())
    text += fmt::format(" (also there: {})", printable(fmt::format("{}", fmt::join(others, ", "))));
  return text;
}

void show_tensors(const Weights& weights) {
  size_t width = 0;
  for (const Weights::Item& item : weights.items()) width = std::max(width, printable(item.name).size());
  for (const Weights::Item& item : weights.items())
    fmt::print("  {:<{}}  {:<5} {}\n", printable(item.name), width, printable(item.dtype_name),
               to_string(item.shape));
}

void show_scheduler(const Weights& file) {
  if (const std::string note = note_on_scheduler(file); !note.empty()) show("scheduler", note);
}

const char* kind_of(const Weights& file) {
  return file.metadata().contains(checkpoint_key) ? "Training checkpoint" : "Model";
}

void show_model(const Weights& file, const Weights& model) {
  const DiTConfig config = read_dit_config(model);
  const std::string classes = describe_classes(model, config);
  fmt::print("{}: {}\n", kind_of(file), describe_model(config));
  show("file", describe_file(file, model));
  show_config(config);
  show_scheduler(file);
  show("parameters", describe_parameters(model));
  show("classes", classes);
}

void show_autoencoder(const Weights& file) {
  const Weights weights = find_vae_weights(file);
  const VaeConfig config = read_vae_config(weights);
  fmt::print("Autoencoder of latent diffusion\n");
  show("file", file.container());
  show("latents",
       fmt::format("{} channels, {} of the side; scaled by {}{}", config.latent_channels,
                   config.reduction() == 8 ? "an eighth" : fmt::format("1/{}", config.reduction()),
                   config.scaling_factor,
                   config.shift_factor == 0 ? "" : fmt::format(" after {} is taken off", config.shift_factor)));
  if (scaling_is_assumed(weights))
    show("", "(which nothing says: it is Stable Diffusion's; SDXL's is 0.13025)");
  show("widths", fmt::format("{}, {} residual blocks a level", fmt::join(config.block_out_channels, ", "),
                             config.layers_per_block));
  show("parameters", describe_parameters(weights));
}

// "norms of q and k; keys and values of 2 x 2 tokens as one in 14 of 28 blocks"; empty: nothing.
std::string describe_extras(const PixArtConfig& config) {
  std::vector<std::string> extras;
  if (config.qk_norm) extras.emplace_back("norms of q and k");
  std::map<int64_t, int64_t> blocks;  // by what they compress
  for (const int64_t side : config.kv_compression) ++blocks[side];
  blocks.erase(1);
  for (const auto& [side, count] : blocks)
    extras.push_back(fmt::format("keys and values of {0} x {0} tokens as one in {1} of {2} blocks", side, count,
                                 config.depth));
  return fmt::format("{}", fmt::join(extras, "; "));
}

void show_text_to_image(const Weights& file, const Weights& weights) {
  const PixArtConfig config = read_pixart_config(weights);
  fmt::print("{}: {}\n", kind_of(file), describe_model(config));
  show("file", describe_file(file, weights));
  show("texts", fmt::format("{} tokens at most, states {} wide, attended with {} heads", config.caption_tokens,
                            config.caption_channels, config.num_cross_heads));
  if (const std::string extras = describe_extras(config); !extras.empty()) show("attention", extras);
  const double flops = gemm_flops(config, config.sample_size, config.sample_size, config.caption_tokens);
  show("cost", fmt::format("{:.3g} GMACs a picture and step, with the longest text", flops / 2 * 1e-9));
  show("positions", fmt::format("divided by {}", config.interpolation));
  if (config.micro_conditions) show("is told", "the picture's size and aspect ratio");
  show("variance", config.learn_sigma ? "learned" : "fixed");
  show("predicts", what_is_predicted(config.prediction));
  show_scheduler(file);
  show("parameters", describe_parameters(weights));
}

void show_text_encoder(const Weights& file) {
  const Weights weights = find_t5_weights(file);
  const T5Config config = read_t5_config(weights);
  fmt::print("Text encoder: T5, {}, width {}, {} of {}, {} pieces\n", counted(config.depth, "block"),
             config.width, counted(config.heads, "head"), config.head_size, config.vocabulary);
  show("file", file.container());
  show("parameters", describe_parameters(weights));
}

void show_classes(const Weights& model, const std::string& text) {
  const DiTConfig config = read_dit_config(model);
  const auto names = names_of_classes(read_class_names(model, config.num_classes), config.num_classes);
  const std::vector<int64_t> found = search_classes(text, names);
  if (found.empty())
    fail("{}: of its {} classes {}", model.source(), config.num_classes,
         names.empty() ? "none has a name" : fmt::format("no name holds \"{}\"", printable(text)));
  for (const int64_t index : found)
    fmt::print("{:>5}  {}\n", index, printable(names[static_cast<size_t>(index)]));
}

void show_weights(const Weights& file, const Options& options) {
  const Choice choice = choice_from_name(options.weights);
  const Weights model = find_dit_weights(file, choice);
  const bool of_texts = holds_pixart(file, choice);
  check(!options.classes || !of_texts, "{}: this is a model of texts; it has no classes", file.source());
  if (options.classes) return show_classes(model, *options.classes);
  if (of_texts) {
    show_text_to_image(file, find_pixart_weights(file, choice));
  } else if (holds_t5(file)) {
    show_text_encoder(file);
  } else if (holds_dit(file, choice)) {
    show_model(file, model);
  } else if (holds_vae(file)) {
    show_autoencoder(file);
  } else {
    fmt::print("Tensors, no model that Linnet knows\n");
    show("file", describe_file(file, model));
    show("numbers", describe_parameters(model));
  }
  const auto& metadata = file.metadata();
  if (const auto step = metadata.find(step_key); step != metadata.end()) show("step", printable(step->second));
  const size_t here = model.items().size(), all = file.items().size();
  show("tensors", here == all ? std::to_string(all) : fmt::format("{} of the file's {}", here, all));
  for (const auto& [key, value] : metadata)
    if (!key.starts_with("linnet.") && !key.starts_with("folder.")) show(printable(key), printable(value));
  if (options.tensors) show_tensors(model);
}

void run(const Options& options) {
  if (!is_builtin(options.file) && !is_folder(options.file) && is_image_file(options.file))
    show_picture(options.file);
  else
    show_weights(open_file(options.file), options);
}

}  // namespace

void add_info(const Verb& app) {
  const Verb verb = app.add_subcommand("info", "Say what a file is: a model, a checkpoint, a painted picture");
  auto options = std::make_shared<Options>();
  verb.add_option("file", options->file,
                  "Weights (safetensors, PyTorch, a folder), a picture, builtin or builtin-text")
      .required();
  add_weights_option(verb, options->weights);
  verb.add_flag("--tensors", options->tensors, "List the tensors: name, type, shape");
  verb.add_option("--find-class", options->classes,
                  "Show the classes whose names hold this text: --find-class retriever")
      .type_name("TEXT");
  verb.callback([options] { run(*options); });
}

}  // namespace linnet::app
