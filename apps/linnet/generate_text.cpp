// linnet generate of a text-to-image model: the text encoder, the transformer, and the autoencoder in turn.
#include <fmt/format.h>

#include <sstream>

#include "core/memory.h"
#include "core/parallel.h"
#include "generate_options.h"
#include "interrupt.h"
#include "io/file.h"
#include "io/sheet.h"
#include "io/text.h"
#include "model_argument.h"
#include "pipeline/picture_text.h"
#include "pipeline/text_encoding.h"
#include "step_watch.h"
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

// Where the parts lie: as given, or in the model's folder.
struct Parts {
  fs::path text_encoder, tokenizer, vae;
};

fs::path part_of(const PaintOptions& options, const std::string& given, const char* name, const char* option) {
  if (!given.empty()) return given;
  const fs::path inside = fs::path(options.model) / name;
  if (fs::is_directory(inside)) return inside;
  throw UsageError(
      fmt::format("{} holds no folder \"{}\": name it with {}", printable(options.model), name, option));
}

Parts find_parts(const PaintOptions& options) {
  Parts parts{part_of(options, options.text_encoder, "text_encoder", "--text-encoder"),
              part_of(options, options.tokenizer, "tokenizer", "--tokenizer"),
              {}};
  if (!options.output.empty()) parts.vae = part_of(options, options.vae, "vae", "--vae");
  return parts;
}

std::vector<std::string> prompts_of(const PaintOptions& options) {
  if (!options.classes.empty())
    throw UsageError("this model paints texts, not classes: linnet generate \"...\"");
  std::vector<std::string> prompts = options.prompts;
  if (!options.prompt_file.empty()) {
    constexpr size_t limit = 100'000'000;
    std::istringstream lines(read_text_file(options.prompt_file, limit));
    for (std::string line; std::getline(lines, line);)
      if (!line.empty()) prompts.push_back(line);
  }
  if (prompts.empty()) throw UsageError("say what to paint: linnet generate \"two red stars\" -o out.png");
  return prompts;
}

Cleaning cleaning_of(const PaintOptions& options) {
  if (options.cleaning == "lower") return Cleaning::lower;
  if (options.cleaning == "strip") return Cleaning::strip;
  throw UsageError(fmt::format("--cleaning is lower or strip, not \"{}\"", printable(options.cleaning)));
}

// Encodes what the cache does not hold. The encoder is loaded only if there is something left to do, and is
// gone afterwards.
class TextStage {
 public:
  TextStage(const Parts& parts, const PaintOptions& options, const PixArtConfig& model)
      : parts_(parts), options_(options), model_(model), tokenizer_(Tokenizer::open(parts.tokenizer)),
        cleaning_(cleaning_of(options)) {}

  TextStates encode(const std::vector<std::string>& texts) {
    const TokenizedTexts tokens = tokenize(tokenizer_, texts, model_.caption_tokens, cleaning_);
    for (size_t i = 0; i < texts.size(); ++i)
      if (tokens.cut[i])
        say(fmt::format("\"{}\" is cut after {} tokens", printable(texts[i], 60), model_.caption_tokens));
    const std::unique_ptr<T5Encoder> encoder = load();
    const TextCache cache(options_.cache, options_.cache.empty() ? "" : name_of_encoder(*encoder));
    const auto start = Clock::now();
    std::vector<Tensor> states;
    std::vector<std::vector<int64_t>> fresh;
    for (const auto& ids : tokens.ids) {
      states.push_back(cache.find(ids, model_.caption_channels));
      if (!states.back().defined()) fresh.push_back(ids);
    }
    // Together: most of the time goes into reading the encoder's weights.
    const TextStates encoded = fresh.empty() ? TextStates{{}, {0}} : encode_texts(*encoder, fresh);
    TextStates all{{}, {0}};
    for (size_t i = 0, next = 0; i < states.size(); ++i) {
      if (!states[i].defined()) {
        states[i] = encoded.states.rows(encoded.offsets[next], encoded.offsets[next + 1]);
        cache.keep(tokens.ids[i], states[i]);
        ++next;
      }
      const TextStates one{states[i], {0, states[i].size(0)}};
      all = all.count() == 0 ? one : join(all, one);
    }
    say(fmt::format("text: {} of {} encoded, {} tokens, {}", fresh.size(), texts.size(), all.offsets.back(),
                    duration(since(start))));
    return all;
  }

 private:
  std::unique_ptr<T5Encoder> load() const {
    std::unique_ptr<T5Encoder> encoder = load_t5(parts_.text_encoder);
    const T5Config& config = encoder->config();
    check(config.width == model_.caption_channels,
          "{}: its states are {} wide, and the transformer takes {}: they do not belong together",
          printable(parts_.text_encoder.string()), config.width, model_.caption_channels);
    check(tokenizer_.size() <= config.vocabulary,
          "{}: it has {} pieces, and the text encoder knows {}: they do not belong together",
          printable(parts_.tokenizer.string()), tokenizer_.size(), config.vocabulary);
    encoder->set_product_dtype(options_.dtype == "f32" ? DType::f32 : ops::fastest_product_dtype());
    return encoder;
  }
  static std::string name_of_encoder(T5Encoder& encoder) {
    return fmt::format("{} in {}", quick_fingerprint(nn::all_parameters(encoder)),
                       name_of(encoder.product_dtype()));
  }

  const Parts& parts_;
  const PaintOptions& options_;
  const PixArtConfig& model_;
  Tokenizer tokenizer_;
  Cleaning cleaning_;
};

SizeInPixels size_of(const PaintOptions& options, const PixArtConfig& config, int64_t reduction) {
  const int64_t base = config.sample_size * reduction;
  if (options.size.empty()) return {base, base};
  const SizeInPixels wanted = size_from_text(options.size);
  const SizeInPixels size = snap_size(wanted, base, config.patch_size * reduction);
  if (!(size == wanted))
    say(fmt::format("size: {}x{}, the nearest to {}x{} that the model was trained with", size.width,
                    size.height, wanted.width, wanted.height));
  return size;
}

// The request but for what stands in files.
TextPaintRequest request_from(const PaintOptions& options) {
  TextPaintRequest request;
  GenerateOptions usual{Sampler::dpmpp, 20, 4.5f, 1 << 20, false};
  request.options = sampling_options(options, usual);
  if (options.guided_channels == "3") request.options.guided_channels = 3;
  request.options.clip_x0 = options.clip == "on";
  request.batch = options.batch;
  request.seed = seed_of(options);
  if (options.unconditional != "text" && options.unconditional != "null")
    throw UsageError(
        fmt::format("--unconditional is text or null, not \"{}\"", printable(options.unconditional)));
  if (options.unconditional == "null" && !options.negative.empty())
    throw UsageError("with --unconditional null there is no negative text");
  return request;
}

}  // namespace

void paint_texts(const PaintOptions& options, const Weights& file) {
  TextPaintRequest request = request_from(options);
  const std::vector<std::string> prompts = prompts_of(options);
  request.count = options.count.value_or(static_cast<int64_t>(prompts.size()));
  const Parts parts = find_parts(options);
  prepare_outputs(options);
  use_threads(options.threads);
  catch_interrupts();

  const Weights weights = find_pixart_weights(file, choice_from_name(options.weights));
  const PixArtConfig config = read_pixart_config(weights);
  check_parameters(nn::all_parameters(*std::make_unique<PixArt>(config)), weights);
  std::unique_ptr<Vae> vae;
  const DType wanted = options.dtype == "f32" ? DType::f32 : DType::bf16;
  if (!parts.vae.empty()) vae = load_decoder(parts.vae, config.in_channels, wanted);
  const int64_t reduction = vae ? vae->config().reduction() : 8;
  const SizeInPixels size = size_of(options, config, reduction);
  request.height = size.height / reduction;
  request.width = size.width / reduction;
  if (options.grid) layout_sheet(request.count, size.height, size.width, options.columns, 4, options.scale);

  const bool guided = request.options.guidance_scale != 1.0f;
  const bool encodes_negative = guided && options.unconditional == "text";
  std::vector<std::string> texts = prompts;
  if (encodes_negative) texts.push_back(options.negative);
  TextStates states = TextStage(parts, options, config).encode(texts);
  release_cached_memory();
  const auto count = static_cast<int64_t>(prompts.size());
  std::vector<int64_t> painted;
  for (int64_t i = 0; i < count; ++i) painted.push_back(i);
  request.texts = select(states, painted);
  if (encodes_negative) request.negative = select(states, {count});

  LoadedPixArt loaded = load_pixart(weights);
  PixArt& model = *loaded.model;
  if (!options.noise.empty())
    request.noise = SafetensorsFile::open(options.noise).tensor("noise").to(DType::f32);
  check_request(request, config);
  PictureOrigin origin{"linnet " LINNET_VERSION,
                       short_name(options.model),
                       fingerprint(nn::learned_parameters(model)),
                       "",
                       {},
                       threads()};
  const DType dtype = model.product_dtype_from_name(options.dtype);
  model.set_product_dtype(dtype);
  nn::freeze(model);
  origin.raw_weights = options.weights == "raw";
  if (vae) {
    if (!options.vae.empty()) origin.vae = short_name(options.vae);
    origin.vae_fingerprint = fingerprint(nn::all_parameters(*vae));
    origin.memory = options.memory;
  }
  if (request.noise.defined()) origin.noise = fingerprint(request.noise);
  const auto named = [](const std::string& path) { return path.empty() ? path : short_name(path); };
  const TextOrigin told{prompts,
                        options.negative,
                        named(options.text_encoder),
                        named(options.tokenizer),
                        options.cleaning,
                        options.unconditional,
                        size};

  say(fmt::format("{}: {}\n{}, {} steps, cfg {}, {}x{}, seed {}; {}", origin.model, describe_model(config),
                  name_of(request.options.sampler), request.options.steps, request.options.guidance_scale,
                  size.width, size.height, request.seed, describe_products(dtype)));
  const auto start = Clock::now();
  const PictureJob job{request.count,
                       {config.in_channels, request.height, request.width},
                       [&](int64_t picture) { return picture_text(origin, told, request, model, picture); },
                       [&] { return sheet_text(origin, told, request, model); },
                       "prompt"};
  PictureWriter writer(options, job, vae.get());
  {
    Progress progress;
    StepWatch watch(progress, request.count);
    request.options.on_step = [&watch](const SamplingStep& step) { watch(step); };
    const int64_t batch =
        request.batch > 0 ? request.batch : default_batch(config, request.height, request.width, request.count);
    request.wanted = [&](int64_t first, int64_t end) {
      end_if_interrupted();
      const bool wants = writer.wants(first, end, batch);
      if (wants) watch.begin_batch(first, end);
      return wants;
    };
    paint(model, request, [&](int64_t first, const Tensor& samples) { writer.take(first, samples); });
    writer.finish();
  }
  say(fmt::format("{}: {}", describe(writer, since(start)), writer.what_was_written()));
}

}  // namespace linnet::app
