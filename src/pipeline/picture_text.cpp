#include "pipeline/picture_text.h"

#include <algorithm>
#include <charconv>

#include "io/text.h"
#include "ops/matmul.h"
#include "pipeline/classes.h"

namespace linnet {
namespace {

// channels are the model's; batch is how many pictures are painted at once.
ImageText common_text(const PictureOrigin& origin, const GenerateOptions& o, int64_t channels, DType dtype,
                      int64_t batch) {
  ImageText text{
      {"Software", origin.software},
      {"model", origin.model},
      {"model-hash", origin.fingerprint},
      {"steps", std::to_string(o.steps)},
      {"cfg", fmt::format("{}", o.guidance_scale)},
      {"cfg-channels",
       o.guided_channels >= channels && o.guided_channels != 3 ? "all" : std::to_string(o.guided_channels)},
      {"sampler", std::string(name_of(o.sampler))},
      {"dtype", ops::name_of_products(dtype, o.device)},
      {"clip", o.clip_x0 ? "on" : "off"},
      {"batch", std::to_string(batch)},
      {"threads", std::to_string(origin.threads)}};
  // Always, as what is usual differs from model to model.
  if (o.guidance_scale != 1.0f) text["cfg-interval"] = fmt::format("{}:{}", o.guided.from, o.guided.to);
  if (o.device.is_gpu()) text["device"] = "cuda";
  if (!origin.noise.empty()) text["noise"] = origin.noise;
  if (!origin.vae.empty()) text["vae"] = origin.vae;
  if (!origin.vae_fingerprint.empty()) {
    text["vae-hash"] = origin.vae_fingerprint;
    if (!origin.memory.empty()) text["memory"] = origin.memory;
  }
  if (origin.raw_weights) text["weights"] = "raw";
  return text;
}

ImageText common_text(const PictureOrigin& origin, const PaintRequest& request, const DiT& model) {
  const int64_t batch = request.batch > 0 ? request.batch : default_batch(model.config());
  return common_text(origin, request.options, model.config().in_channels, model.product_dtype(), batch);
}

ImageText common_text(const PictureOrigin& origin, const TextOrigin& told, const TextPaintRequest& request,
                      const PixArtConfig& config, DType dtype) {
  const int64_t batch =
      request.batch > 0 ? request.batch : default_batch(config, request.height, request.width);
  ImageText text = common_text(origin, request.options, config.in_channels, dtype, batch);
  text["size"] = fmt::format("{}x{}", told.size.width, told.size.height);
  text["cleaning"] = told.cleaning;
  if (request.options.grid == TimeGrid::fractional) text["time-grid"] = "fractional";
  if (request.options.guidance_scale != 1.0f) text["unconditional"] = told.unconditional;
  if (!told.negative.empty()) text["negative"] = told.negative;
  if (!told.text_encoder.empty()) text["text-encoder"] = told.text_encoder;
  if (!told.tokenizer.empty()) text["tokenizer"] = told.tokenizer;
  return text;
}

bool harmless(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-_./+,:=").find(c) != std::string_view::npos;
}

// As bash reads $'...', in which printable()'s escapes mean what they replace.
std::string quoted_with_escapes(const std::string& value) {
  std::string result;
  for (const char c : value) {
    if (c == '\'' || c == '\\') result += '\\';
    result += c;
  }
  return fmt::format("$'{}'", printable(result, std::string::npos));
}

std::string quoted(const std::string& value) {
  if (!value.empty() && std::ranges::all_of(value, harmless)) return value;
  if (printable(value, std::string::npos) != value) return quoted_with_escapes(value);
  std::string result;
  for (const char c : value) {
    if (c == '\'') result += "'\\'";  // out of the quotes, the quote itself, and in again
    result += c;
  }
  return fmt::format("'{}'", result);
}

// "prompt", or "prompt-0001" and so on in the order of their numbers, of which the ten thousandth has more
// digits.
std::vector<std::string> prompts_of(const ImageText& text) {
  constexpr std::string_view start = "prompt";
  std::vector<std::pair<size_t, std::string>> numbered;
  for (const auto& [key, value] : text) {
    if (key != start && !key.starts_with("prompt-")) continue;
    size_t number = 0;
    const std::string_view digits = std::string_view(key).substr(std::min(start.size() + 1, key.size()));
    std::from_chars(digits.data(), digits.data() + digits.size(), number);
    numbered.emplace_back(number, value);
  }
  std::ranges::stable_sort(numbered, {}, &std::pair<size_t, std::string>::first);
  std::vector<std::string> prompts;
  for (auto& [number, prompt] : numbered) prompts.push_back(std::move(prompt));
  return prompts;
}

}  // namespace

ImageText picture_text(const PictureOrigin& origin, const PaintRequest& request, const DiT& model,
                       int64_t picture) {
  ImageText text = common_text(origin, request, model);
  const int64_t index = request.class_of(picture, model.config());
  text["class"] = class_name(index, origin.class_names);
  text["class-index"] = std::to_string(index);
  text["seed"] = std::to_string(request.seed_of(picture));
  return text;
}

ImageText sheet_text(const PictureOrigin& origin, const PaintRequest& request, const DiT& model) {
  ImageText text = common_text(origin, request, model);
  const auto distinct = static_cast<int64_t>(request.classes.size());
  const int64_t shown = std::min(request.count, distinct > 0 ? distinct : model.config().num_classes);
  std::vector<std::string> names, numbers;
  for (int64_t i = 0; i < shown; ++i) {
    const int64_t index = request.class_of(i, model.config());
    names.push_back(class_name(index, origin.class_names));
    numbers.push_back(std::to_string(index));
  }
  // Names with commas in them, as ImageNet's, could not be told apart again.
  const auto has_comma = [](const std::string& name) { return name.find(',') != std::string::npos; };
  if (shown > 1 && std::ranges::any_of(names, has_comma)) names = numbers;
  text[shown == 1 ? "class" : "classes"] = fmt::format("{}", fmt::join(names, ","));
  text["count"] = std::to_string(request.count);
  text["seed"] = std::to_string(request.seed);
  return text;
}

ImageText picture_text(const PictureOrigin& origin, const TextOrigin& told, const TextPaintRequest& request,
                       const PixArtConfig& config, DType dtype, int64_t picture) {
  ImageText text = common_text(origin, told, request, config, dtype);
  text["prompt"] = told.prompts[static_cast<size_t>(picture) % told.prompts.size()];
  text["seed"] = std::to_string(request.seed_of(picture));
  return text;
}

ImageText sheet_text(const PictureOrigin& origin, const TextOrigin& told, const TextPaintRequest& request,
                     const PixArtConfig& config, DType dtype) {
  ImageText text = common_text(origin, told, request, config, dtype);
  const size_t shown = std::min(told.prompts.size(), static_cast<size_t>(request.count));
  for (size_t i = 0; i < shown; ++i)
    text[shown == 1 ? "prompt" : fmt::format("prompt-{:04}", i + 1)] = told.prompts[i];
  text["count"] = std::to_string(request.count);
  text["seed"] = std::to_string(request.seed);
  return text;
}

std::string command_of(const ImageText& text) {
  const auto software = text.find("Software");
  if (software == text.end() || !software->second.starts_with("linnet ")) return {};
  const std::pair<const char*, const char*> options[] = {{"model", "--model"},
                                                         {"weights", "--weights"},
                                                         {"negative", "--negative"},
                                                         {"size", "--size"},
                                                         {"text-encoder", "--text-encoder"},
                                                         {"tokenizer", "--tokenizer"},
                                                         {"cleaning", "--cleaning"},
                                                         {"time-grid", "--time-grid"},
                                                         {"unconditional", "--unconditional"},
                                                         {"class", "--class"},
                                                         {"classes", "--class"},
                                                         {"count", "-n"},
                                                         {"columns", "--columns"},
                                                         {"scale", "--scale"},
                                                         {"seed", "--seed"},
                                                         {"steps", "--steps"},
                                                         {"cfg", "--cfg"},
                                                         {"cfg-interval", "--cfg-interval"},
                                                         {"sampler", "--sampler"},
                                                         {"cfg-channels", "--cfg-channels"},
                                                         {"dtype", "--dtype"},
                                                         {"device", "--device"},
                                                         {"clip", "--clip"},
                                                         {"vae", "--vae"},
                                                         {"memory", "--memory"},
                                                         {"batch", "--batch"},
                                                         {"threads", "--threads"}};
  std::string command = "linnet generate";
  const bool sheet = text.contains("count");
  std::string prompts;
  bool like_options = false;
  for (const std::string& prompt : prompts_of(text)) {
    prompts += " " + quoted(prompt);
    like_options = like_options || prompt.starts_with('-') || prompt == "++";  // which ends a verb's arguments
  }
  if (!like_options) command += prompts;
  for (const auto& [key, option] : options) {
    const auto entry = text.find(key);
    if (entry != text.end() && (sheet || std::string_view(key) != "batch"))  // one picture is a batch of one
      command += fmt::format(" {} {}", option, quoted(entry->second));
  }
  if (text.contains("noise")) command += " --noise FILE";
  command += sheet ? " --grid -o out.png" : " -o out.png";
  return like_options ? command + " --" + prompts : command;
}

}  // namespace linnet
