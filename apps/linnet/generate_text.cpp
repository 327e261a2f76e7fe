// linnet generate of a text-to-image model: the text encoder, the transformer, and the autoencoder in turn.
#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "core/memory.h"
#include "core/parallel.h"
#include "generate_options.h"
#include "interrupt.h"
#include "io/file.h"
#include "io/scenes.h"
#include "io/text.h"
#include "memory_argument.h"
#include "model_argument.h"
#include "nn/product_type.h"
#include "ops/matmul.h"
#include "pipeline/decode.h"
#include "pipeline/memory_plan.h"
#include "pipeline/picture_text.h"
#include "pipeline/text_to_image.h"
#include "preview.h"
#include "step_watch.h"
#include "store/parameters.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"

namespace linnet::app {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void say(const std::string& line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

// As given, or in the model's folder; the autoencoder only if there are latents, and pictures are wanted of
// them.
TextToImageParts find_parts(const PaintOptions& options, const PixArtConfig& config) {
  const auto part = [&](const std::string& given, const char* name, const char* option) -> fs::path {
    if (!given.empty()) return given;
    return options.model == builtin_text ? builtin_text
                                         : part_in(options.model, name, fmt::format("name it with {}", option));
  };
  if (config.in_channels == 3 && !options.vae.empty())
    throw UsageError("this model paints pixels: --vae has nothing to decode");
  const bool decodes = config.in_channels != 3 && !options.output.empty();
  return {options.model, part(options.text_encoder, "text_encoder", "--text-encoder"),
          part(options.tokenizer, "tokenizer", "--tokenizer"),
          decodes ? part(options.vae, "vae", "--vae") : fs::path()};
}

// Which editors of Windows put before UTF-8.
std::string without_byte_order_mark(std::string text) {
  constexpr std::string_view mark = "\xef\xbb\xbf";
  return text.starts_with(mark) ? text.substr(mark.size()) : text;
}

std::vector<std::string> prompts_of(const PaintOptions& options) {
  if (!options.classes.empty())
    throw UsageError("this model paints texts, not classes: linnet generate \"...\"");
  std::vector<std::string> prompts = options.prompts;
  if (!options.prompt_file.empty()) {
    constexpr size_t limit = 100'000'000;
    std::istringstream lines(without_byte_order_mark(read_text_file(options.prompt_file, limit)));
    int64_t number = 0;
    for (std::string line; std::getline(lines, line);) {
      ++number;
      if (line.ends_with('\r')) line.pop_back();  // of Windows
      const std::string fault = fault_of_text(line);
      check(fault.empty(), "{}, line {}: its text {}", printable(options.prompt_file), number, fault);
      if (!line.empty()) prompts.push_back(line);
    }
  }
  if (prompts.empty()) throw UsageError("say what to paint: linnet generate \"two red stars\" -o out.png");
  return prompts;
}

// The model that ships paints something of any words, and knows few.
void tell_of_unknown_scenes(const std::vector<std::string>& prompts) {
  const auto is_unknown = [](const std::string& prompt) { return !description_from(prompt); };
  const auto unknown = std::ranges::find_if(prompts, is_unknown);
  if (unknown == prompts.end()) return;
  const auto count = std::ranges::count_if(prompts, is_unknown);
  say(fmt::format(
      "{} has not learned \"{}\"{}: its sentences are like \"two red stars above a blue ring\", of one "
      "to three of {}, which are {}",
      builtin_text, printable(*unknown, 60), count > 1 ? fmt::format(" and {} more", count - 1) : "",
      fmt::join(shape_names(), ", "), fmt::join(colour_names(), ", ")));
}

// Encodes what the cache does not hold. The encoder is always opened, as the cache goes by it, but only read if
// there is something left to do; afterwards it is gone.
class TextStage {
 public:
  TextStage(const TextToImageParts& parts, const PaintOptions& options, const PixArtConfig& model,
            const Device& device, const std::vector<std::string>& texts)
      : parts_(parts), options_(options), model_(model), device_(device),
        tokenizer_(open_tokenizer(parts.tokenizer)),
        tokens_(tokenize(tokenizer_, texts, model.caption_tokens, cleaning_from_name(options.cleaning))),
        encoder_(load()) {
    for (size_t i = 0; i < texts.size(); ++i)
      if (tokens_.cut[i])
        say(fmt::format("\"{}\" is cut after {} tokens", printable(texts[i], 60), model_.caption_tokens));
  }

  const T5Encoder& encoder() const { return *encoder_; }
  /// Of what is encoded together.
  int64_t tokens() const {
    return std::min(count_of_tokens(), std::max(tokens_at_once, model_.caption_tokens));
  }

  /// Tokens whose states stay in memory; with a cache they lie in its files.
  int64_t kept_tokens() const { return options_.cache.empty() ? count_of_tokens() : 0; }

  /// Of each text that is wanted; the others undefined. What is encoded is kept at once, and with a cache it
  /// leaves memory again.
  std::vector<Tensor> encode(const std::vector<bool>& wanted) const {
    const TextCache cache(options_.cache, options_.cache.empty() ? "" : name_of_encoder());
    const auto start = Clock::now();
    std::vector<Tensor> states;
    std::vector<size_t> missing;
    std::vector<std::vector<int64_t>> fresh;
    for (size_t i = 0; i < tokens_.ids.size(); ++i) {
      states.push_back(wanted[i] ? cache.find(tokens_.ids[i], model_.caption_channels) : Tensor());
      if (states.back().defined() || !wanted[i]) continue;
      missing.push_back(i);
      fresh.push_back(tokens_.ids[i]);
    }
    if (!fresh.empty() && !options_.cache.empty()) check_folder_writable(options_.cache);
    if (!fresh.empty()) place(*encoder_, device_, tokens());
    encode_shown(fresh, [&](size_t i, const Tensor& encoded) {
      cache.keep(fresh[i], encoded);
      const Tensor mapped = cache.find(fresh[i], model_.caption_channels);
      states[missing[i]] = mapped.defined() ? mapped : encoded;
    });
    say(fmt::format("text: {} of {} encoded, {} tokens, {}", fresh.size(), tokens_.ids.size(),
                    count_of_tokens(), duration(since(start))));
    return states;
  }

 private:
  int64_t count_of_tokens() const {
    int64_t count = 0;
    for (const auto& ids : tokens_.ids) count += static_cast<int64_t>(ids.size());
    return count;
  }
  void encode_shown(const std::vector<std::vector<int64_t>>& ids,
                    const std::function<void(size_t, const Tensor&)>& take) const {
    Progress progress;
    size_t first = 0;
    int64_t block = 0;
    const auto show = [&] {
      const std::string of_texts = ids.size() > 1 ? fmt::format(", text {} of {}", first + 1, ids.size()) : "";
      progress.stage(fmt::format("text encoder, block {} of {}{}", block, encoder_->config().depth, of_texts));
    };
    const auto on_block = [&] {
      end_if_interrupted();
      forget_mapped_pages();
      ++block;
      show();
    };
    for (; first < ids.size(); block = 0) {
      show();
      const auto begin = ids.begin() + static_cast<ptrdiff_t>(first);
      const auto end = begin + static_cast<ptrdiff_t>(texts_at_once(ids, first));
      for (const Tensor& states : encode_each(*encoder_, {begin, end}, on_block)) take(first++, states);
    }
  }
  std::unique_ptr<T5Encoder> load() const {
    std::unique_ptr<T5Encoder> encoder = open_text_encoder(parts_.text_encoder, options_.weights);
    make_ready(*encoder, tokenizer_, parts_, model_, options_.dtype, device_);
    return encoder;
  }
  std::string name_of_encoder() const {
    return fmt::format("{} in {}", quick_fingerprint(*encoder_),
                       ops::name_of_products(encoder_->product_dtype(), device_));
  }

  const TextToImageParts& parts_;
  const PaintOptions& options_;
  const PixArtConfig& model_;
  const Device device_;
  Tokenizer tokenizer_;
  TokenizedTexts tokens_;
  std::unique_ptr<T5Encoder> encoder_;
};

SizeInPixels size_of(const PaintOptions& options, const PixArtConfig& config, int64_t reduction) {
  if (options.size.empty()) return size_to_paint({}, config, reduction);
  const SizeInPixels wanted = size_from_text(options.size);
  const SizeInPixels size = size_to_paint(wanted, config, reduction);
  if (!(size == wanted))
    say(fmt::format("size: {}x{}, the nearest to {}x{} that the model {}", size.width, size.height,
                    wanted.width, wanted.height,
                    has_bins(config.sample_size * reduction) ? "was trained with" : "can paint"));
  return size;
}

// Guidance leads away from a text that is encoded, which is empty unless one is given.
bool has_negative(const PaintOptions& options, const TextPaintRequest& request) {
  return request.options.guidance_scale != 1.0f && options.unconditional == "text";
}

// The request but for what stands in files.
TextPaintRequest request_from(const PaintOptions& options, const PixArtConfig& config) {
  TextPaintRequest request;
  request.options = sampling_options(options, usual_options(config));
  if (options.guided_channels == "3") request.options.guided_channels = 3;
  if (options.time_grid != "rounded" && options.time_grid != "fractional")
    throw UsageError(
        fmt::format("--time-grid is rounded or fractional, not \"{}\"", printable(options.time_grid)));
  if (options.time_grid == "fractional") request.options.grid = TimeGrid::fractional;
  if (options.time_grid == "fractional" && request.options.sampler != Sampler::dpmpp)
    throw UsageError(fmt::format("--time-grid is of dpm++: {} has one grid", name_of(request.options.sampler)));
  request.batch = options.batch;
  request.seed = seed_of(options);
  if (options.unconditional != "text" && options.unconditional != "null")
    throw UsageError(
        fmt::format("--unconditional is text or null, not \"{}\"", printable(options.unconditional)));
  if (options.unconditional == "null" && !options.negative.empty())
    throw UsageError("with --unconditional null there is no negative text");
  if (request.options.guidance_scale == 1.0f && !options.negative.empty())
    throw UsageError("with --cfg 1 there is no guidance, and so no --negative text that it leads away from");
  return request;
}

// The transformer and the autoencoder, and how they share the memory.
class PaintStage {
 public:
  PaintStage(const PaintOptions& options, const Weights& weights, const PixArtConfig& config,
             const Device& device, const fs::path& vae)
      : options_(options), weights_(weights), config_(config), device_(device) {
    PixArt shapes(config);
    check_parameters(nn::all_parameters(shapes), without_positions(weights));
    if (vae.empty()) return;
    say_scaling(vae);
    vae_ =
        load_decoder(vae, config.in_channels, ops::wide_product_dtype_from_name(options.dtype, device), device);
  }

  const Vae* vae() const { return vae_.get(); }
  /// Pixels a side that a value of a sample is.
  int64_t reduction() const {
    if (config_.in_channels == 3) return 1;
    return vae_ ? vae_->config().reduction() : 8;
  }
  DType dtype() const { return dtype_; }
  std::string fingerprint_of_vae() const { return fingerprint(nn::all_parameters(*vae_)); }

  /// Throws UsageError, before anything is computed, when --memory is too little.
  void plan(const TextStage& texts, const TextPaintRequest& request) {
    dtype_ = product_dtype();
    const bool guided = request.options.guidance_scale != 1.0f;
    const int64_t at_once = std::min(request.batch, request.count);
    sizes_ = {
        guided ? 2 * at_once : at_once, request.height, request.width,     texts.tokens(), texts.kept_tokens(),
        weights_.made_bytes(),          dtype_,         stored_in_8_bits()};
    decoding_ = decoding_limit(options_, device_);
    // On a GPU all stages stay there, of the weights as many as there is room for.
    if (device_.is_gpu()) return;
    const StageMemory stages = plan_memory(texts.encoder(), config_, vae_.get(), sizes_);
    const size_t budget = options_.memory.empty() ? 0 : bytes_from(options_.memory);
    if (budget == 0) return;
    constexpr size_t megabyte = size_t{1} << 20;
    if (budget < stages.smallest())
      throw UsageError(fmt::format("--memory {} is too little for {}x{} pixels: at least {}M are needed",
                                   options_.memory, request.width * reduction(), request.height * reduction(),
                                   stages.smallest() / megabyte + 1));
    one_by_one_ = budget < stages.together();
    decoding_ = budget - stages.process - stages.vae - (one_by_one_ ? 0 : stages.transformer);
  }

  /// Made while the transformer is not loaded, so that it fits into the memory that decoding has.
  SamplePreview preview() const {
    return vae_ && wants_previews(options_) ? SamplePreview(*vae_, decoding_, device_) : SamplePreview();
  }
  PixArt& model() {
    if (!loaded_.model) load();
    return *loaded_.model;
  }
  /// Of the weights as they are in the file.
  std::string fingerprint_of_model() const {
    return fingerprint(nn::learned_parameters(*load_pixart(weights_).model));
  }
  PictureWriter::Decode decode() {
    if (!vae_) return {};
    return [this](const Tensor& sample) {
      if (one_by_one_) {
        loaded_ = {};
        release_cached_memory();
      }
      return decode_samples(*vae_, sample, decoding_);
    };
  }

 private:
  bool stored_in_8_bits() const { return weights_.item("blocks.0.mlp.fc1.weight").dtype == DType::i8; }
  DType product_dtype() const {
    return nn::product_type_from_name(options_.dtype, stored_in_8_bits(), device_);
  }
  void load() {
    loaded_ = load_pixart(weights_);
    make_ready(*loaded_.model, dtype_, device_, sizes_.pictures, sizes_.height, sizes_.width);
  }

  const PaintOptions& options_;
  const Weights& weights_;
  const PixArtConfig& config_;
  const Device device_;
  std::unique_ptr<Vae> vae_;
  LoadedPixArt loaded_;
  DType dtype_ = DType::f32;
  StageSizes sizes_;
  size_t decoding_ = 0;
  bool one_by_one_ = false;
};

TextOrigin told_of(const PaintOptions& options, const std::vector<std::string>& prompts,
                   const SizeInPixels& size) {
  const auto named = [](const std::string& path) { return path.empty() ? path : short_name(path); };
  return {prompts,
          options.negative,
          named(options.text_encoder),
          named(options.tokenizer),
          options.cleaning,
          options.unconditional,
          size};
}

PictureOrigin origin_of(const PaintOptions& options, PaintStage& stage, const TextPaintRequest& request) {
  PictureOrigin origin{
      "linnet " LINNET_VERSION, short_name(options.model), stage.fingerprint_of_model(), "", {}, threads()};
  origin.raw_weights = options.weights == "raw";
  origin.memory = options.memory;
  if (stage.vae()) {
    if (!options.vae.empty()) origin.vae = short_name(options.vae);
    origin.vae_fingerprint = stage.fingerprint_of_vae();
  }
  if (request.noise.defined()) origin.noise = fingerprint(request.noise);
  return origin;
}

// Which of the texts, the prompts and maybe the negative one, the pictures need that are to be painted.
std::vector<bool> wanted_texts(PictureWriter& writer, const TextPaintRequest& request, size_t texts,
                               size_t prompts) {
  std::vector<bool> wanted(texts, false);
  for_batches(request.count, request.batch, [&](int64_t first, int64_t end) {
    if (!writer.lacks(first, end, request.batch)) return;
    for (int64_t i = first; i < end; ++i) wanted[static_cast<size_t>(i) % prompts] = true;
    if (texts > prompts) wanted.back() = true;
  });
  return wanted;
}

// Batch by batch: between two the model may have given its memory to the autoencoder.
void paint_all(const PaintOptions& options, PaintStage& stage, TextPaintRequest request,
               PictureWriter& writer) {
  Progress progress;
  StepWatch watch(progress, request.count);
  PreviewWatch preview(options, progress, stage.preview());
  request.options.on_step = [&](const SamplingStep& step) {
    preview(step);
    watch(step);
  };
  for_batches(request.count, request.batch, [&](int64_t first, int64_t end) {
    end_if_interrupted();
    if (!writer.wants(first, end, request.batch)) return;
    watch.begin_batch(first, end);
    writer.take(first, paint_batch(stage.model(), request, first, end), progress);
  });
  writer.finish();
}

}  // namespace

void paint_texts(const PaintOptions& options, const Weights& file) {
  std::vector<std::string> prompts = prompts_of(options);
  const Weights weights = find_pixart_weights(file, choice_from_name(options.weights));
  const PixArtConfig config = read_pixart_config(weights);
  TextPaintRequest request = request_from(options, config);
  request.count = options.count.value_or(static_cast<int64_t>(prompts.size()));
  if (request.count > 0) prompts.resize(std::min(prompts.size(), static_cast<size_t>(request.count)));
  const TextToImageParts parts = find_parts(options, config);
  prepare_outputs(options);
  use_threads(options.threads);
  catch_interrupts();

  PaintStage stage(options, weights, config, request.options.device, parts.vae);
  const SizeInPixels size = size_of(options, config, stage.reduction());
  request.noise = start_noise(options);
  complete(request, config, size, stage.reduction(), has_negative(options, request));
  check_sizes(options, request.count, size.width, size.height);

  std::vector<std::string> texts = prompts;
  if (has_negative(options, request)) texts.push_back(options.negative);
  auto text_stage = std::make_unique<TextStage>(parts, options, config, request.options.device, texts);
  stage.plan(*text_stage, request);
  const PictureOrigin origin = origin_of(options, stage, request);
  const TextOrigin told = told_of(options, prompts, size);
  const PictureJob job{
      request.count,
      {config.in_channels, request.height, request.width},
      [&](int64_t picture) { return picture_text(origin, told, request, config, stage.dtype(), picture); },
      [&] { return sheet_text(origin, told, request, config, stage.dtype()); },
      "prompt"};
  PictureWriter writer(options, job, stage.decode());
  writer.check_what_is_there();
  say(fmt::format("{}: {}\n{}, {} steps, cfg {}, {}x{}, seed {}; {}", printable(origin.model),
                  describe_model(config), name_of(request.options.sampler), request.options.steps,
                  request.options.guidance_scale, size.width, size.height, request.seed,
                  describe_products(stage.dtype(), request.options.device)));
  if (options.model == builtin_text) tell_of_unknown_scenes(prompts);

  const std::vector<bool> wanted = wanted_texts(writer, request, texts.size(), prompts.size());
  take_states(request, text_stage->encode(wanted), static_cast<int64_t>(prompts.size()));
  text_stage.reset();
  release_cached_memory();
  const auto start = Clock::now();
  paint_all(options, stage, request, writer);
  say(fmt::format("{}: {}", describe(writer, since(start)), writer.what_was_written()));
}

}  // namespace linnet::app
