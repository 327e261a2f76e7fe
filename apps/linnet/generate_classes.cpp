// linnet generate of a class-conditional model: pictures from classes and seeds.
#include <fmt/format.h>

#include <algorithm>

#include "core/parallel.h"
#include "generate_options.h"
#include "interrupt.h"
#include "io/text.h"
#include "model_argument.h"
#include "pipeline/classes.h"
#include "pipeline/decode.h"
#include "pipeline/picture_text.h"
#include "preview.h"
#include "step_watch.h"
#include "store/dit_file.h"

namespace linnet::app {
namespace {

using Clock = std::chrono::steady_clock;

// What decodes the model's samples, if they are latents and pictures are wanted.
std::unique_ptr<Vae> decoder_of(const PaintOptions& options, const DiT& model, DType dtype,
                                const Device& device) {
  const int64_t channels = model.config().in_channels;
  if (channels == 3) {
    if (!options.vae.empty()) throw UsageError("this model paints pixels: --vae has nothing to decode");
    return nullptr;
  }
  if (options.output.empty()) return nullptr;
  if (vae_path(options).empty())
    throw UsageError(fmt::format(
        "this model makes latents of {} channels: name the autoencoder that decodes them with --vae, or "
        "write them with --latents-out FILE instead of -o",
        channels));
  say_scaling(vae_path(options));
  return load_decoder(vae_path(options), channels, dtype, device);
}

// What would change nothing here is refused, not passed over.
void refuse_options_of_texts(const PaintOptions& options) {
  if (!options.prompts.empty() || !options.prompt_file.empty())
    throw UsageError("this model paints classes (--class), not texts");
  const std::pair<const char*, std::string PaintOptions::*> of_texts[] = {
      {"--negative", &PaintOptions::negative},
      {"--size", &PaintOptions::size},
      {"--text-encoder", &PaintOptions::text_encoder},
      {"--tokenizer", &PaintOptions::tokenizer},
      {"--cache", &PaintOptions::cache},
      {"--cleaning", &PaintOptions::cleaning},
      {"--unconditional", &PaintOptions::unconditional},
      {"--time-grid", &PaintOptions::time_grid}};
  const PaintOptions usual;
  for (const auto& [option, value] : of_texts)
    if (options.*value != usual.*value)
      throw UsageError(fmt::format("{} is for models that paint texts", option));
}

PaintRequest request_from(const PaintOptions& options) {
  refuse_options_of_texts(options);
  PaintRequest request;
  request.count = options.count.value_or(1);  // unless more classes are given
  request.batch = options.batch;
  request.seed = seed_of(options);
  request.options = sampling_options(options, {});
  check_request(request);
  return request;
}

// "balanced" is every class in turn, unless a class has that very name.
bool is_every_class(const std::string& text, const std::vector<std::string>& names) {
  return text == "balanced" && std::ranges::find(names, text) == names.end();
}

// What follows from the model: classes, how many, clipping, channels.
void complete(PaintRequest& request, const PaintOptions& options, const LoadedDiT& loaded, const Vae* vae) {
  const DiTConfig& config = loaded.model->config();
  const int64_t side = config.input_size * (vae ? vae->config().reduction() : 1);
  for (const std::string& text : options.classes) {
    if (is_every_class(text, loaded.class_names)) {
      if (options.classes.size() > 1)
        throw UsageError("--class balanced is every class in turn: none can be named beside it");
      continue;
    }
    for (const int64_t index : find_classes(text, loaded.class_names, config.num_classes))
      request.classes.push_back(index);
  }
  if (!options.count) request.count = std::max<int64_t>(1, static_cast<int64_t>(request.classes.size()));
  if (options.clip == "auto") request.options.clip_x0 = config.in_channels == 3;
  request.options.guided_channels = options.guided_channels == "all" ? static_cast<int>(config.in_channels) : 3;
  request.noise = start_noise(options);
  check_request(request, config);
  check_sizes(options, request.count, side, side);
}

}  // namespace

void paint_classes(const PaintOptions& options, const Weights& file) {
  PaintRequest request = request_from(options);
  prepare_outputs(options);
  use_threads(options.threads);
  LoadedDiT loaded = load_dit(find_dit_weights(file, choice_from_name(options.weights)));
  DiT& model = *loaded.model;
  const Device& device = request.options.device;
  const DType dtype = model.product_dtype_from_name(options.dtype, device);
  loaded.class_names = names_of_classes(std::move(loaded.class_names), model.config().num_classes);
  const std::unique_ptr<Vae> vae = decoder_of(options, model, dtype, device);
  complete(request, options, loaded, vae.get());
  // Of the weights as they are in the file, which --dtype may round.
  PictureOrigin origin{"linnet " LINNET_VERSION, short_name(options.model),
                       fingerprint(model),       "",
                       loaded.class_names,       threads()};
  origin.raw_weights = options.weights == "raw";
  if (vae) {
    if (!options.vae.empty()) origin.vae = short_name(options.vae);
    origin.vae_fingerprint = fingerprint(nn::all_parameters(*vae));
    origin.memory = device.is_gpu() ? options.memory : options.decoding_memory();
  }
  if (request.noise.defined()) origin.noise = fingerprint(request.noise);
  const int64_t batch = request.batch > 0 ? request.batch : default_batch(model.config());
  const size_t memory = decoding_limit(options, device);
  make_ready(model, dtype, device, 2 * std::min(batch, request.count));

  const DiTConfig& c = model.config();
  const PictureJob job{request.count,
                       {c.in_channels, c.input_size, c.input_size},
                       [&](int64_t picture) { return picture_text(origin, request, model, picture); },
                       [&] { return sheet_text(origin, request, model); }};
  PictureWriter writer(options, job, decoder(vae.get(), memory));
  writer.check_what_is_there();
  fmt::print("{}: {}\n{}, {} steps, cfg {}, seed {}; {}\n", printable(origin.model),
             describe_model(model.config()), name_of(request.options.sampler), request.options.steps,
             request.options.guidance_scale, request.seed, describe_products(dtype, device));
  std::fflush(stdout);
  catch_interrupts();
  const auto start = Clock::now();
  {
    Progress progress;
    StepWatch watch(progress, request.count);
    PreviewWatch preview(
        options, progress,
        vae && wants_previews(options) ? SamplePreview(*vae, memory, device) : SamplePreview());
    request.options.on_step = [&](const SamplingStep& step) {
      preview(step);
      watch(step);
    };
    request.wanted = [&](int64_t first, int64_t end) {
      end_if_interrupted();
      const bool wanted = writer.wants(first, end, batch);
      if (wanted) watch.begin_batch(first, end);
      return wanted;
    };
    paint(model, request, [&](int64_t first, const Tensor& samples) { writer.take(first, samples, progress); });
    writer.finish();
  }
  fmt::print("{}: {}\n", describe(writer, std::chrono::duration<double>(Clock::now() - start).count()),
             writer.what_was_written());
}

}  // namespace linnet::app
