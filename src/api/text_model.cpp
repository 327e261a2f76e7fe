// Painting from words, as the public interface has it (include/linnet/linnet.h).
#include <algorithm>

#include "api/common.h"
#include "builtin/builtin_model.h"
#include "io/file.h"
#include "pipeline/decode.h"
#include "pipeline/memory_plan.h"
#include "pipeline/text_to_image.h"
#include "store/dit_file.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"

namespace linnet {

struct TextModel::State {
  std::unique_ptr<PixArt> model;
  std::unique_ptr<T5Encoder> encoder;
  Tokenizer tokenizer;
  Device device;
  std::unique_ptr<Vae> vae = nullptr;  // none: the model paints pixels

  int64_t reduction() const { return vae ? vae->config().reduction() : 1; }
  void paint(const TextRequest& request, const api::TakePicture& take) const;
};

namespace {

std::unique_ptr<PixArt> ready_to_paint(const Weights& file, Precision precision, const Device& device) {
  if (looks_like_dit(find_dit_weights(file)))
    throw UsageError(fmt::format("{}: this is a model of classes: use Model", file.source()));
  std::unique_ptr<PixArt> model = load_pixart(find_pixart_weights(file)).model;
  const DType products = model->product_dtype_from_name(api::name_of(precision), device);
  const int64_t side = model->config().sample_size;
  const int64_t pictures = 2 * default_batch(model->config(), side, side);  // with guidance
  make_ready(*model, products, device, pictures, side, side);
  return model;
}

void make_ready_and_place(T5Encoder& encoder, const Tokenizer& tokenizer, const TextToImageParts& parts,
                          const PixArtConfig& model, Precision precision, const Device& device) {
  make_ready(encoder, tokenizer, parts, model, api::name_of(precision), device);
  place(encoder, device, std::max(tokens_at_once, model.caption_tokens));
}

// The autoencoder is another matter, as a model of pixels has none.
TextToImageParts find_parts(const std::filesystem::path& model, const TextModelOptions& options) {
  const auto part = [&](const std::filesystem::path& given, const char* name) {
    return given.empty() ? part_in(model, name, "name one") : given;
  };
  return {.transformer = model,
          .text_encoder = part(options.text_encoder, "text_encoder"),
          .tokenizer = part(options.tokenizer, "tokenizer"),
          .vae = {}};
}

TextPaintRequest translate(const TextRequest& request, const PixArtConfig& config, int64_t reduction) {
  if (request.prompts.empty()) throw UsageError("there is no prompt to paint");
  TextPaintRequest result;
  result.count = request.count == 0 ? static_cast<int64_t>(request.prompts.size()) : request.count;
  result.seed = request.seed;
  result.batch = request.batch;
  result.options = usual_options(config);
  result.options.sampler = sampler_from_name(request.sampler);
  result.options.steps = request.steps;
  if (request.guidance_scale) result.options.guidance_scale = *request.guidance_scale;
  if (request.guided) result.options.guided = api::interval_of(*request.guided);
  result.options.on_step = api::watched_by(request.on_step);
  std::optional<SizeInPixels> size;
  if (request.width != 0 || request.height != 0) size = {request.height, request.width};
  complete(result, config, size_to_paint(size, config, reduction), reduction, true);
  return result;
}

}  // namespace

TextModel::TextModel(const std::filesystem::path& path, const TextModelOptions& options)
    : TextModel(api::without_bad_alloc([&] {
        const Device device = device_from_name(options.device);
        const api::Turn turn(device);
        auto model = ready_to_paint(Weights::open(path), options.precision, device);
        const TextToImageParts parts = find_parts(path, options);
        auto encoder = load_t5(parts.text_encoder);
        auto tokenizer = Tokenizer::open(parts.tokenizer);
        make_ready_and_place(*encoder, tokenizer, parts, model->config(), options.precision, device);
        auto vae = api::decoder_for(model->config().in_channels, path, options.autoencoder,
                                    model->product_dtype(), device);
        return std::make_unique<State>(
            State{std::move(model), std::move(encoder), std::move(tokenizer), device, std::move(vae)});
      })) {}

TextModel TextModel::builtin(const TextModelOptions& options) {
  return api::without_bad_alloc([&] {
    const Device device = device_from_name(options.device);
    const api::Turn turn(device);
    api::check_decodes_nothing(options.autoencoder);
    if (!options.text_encoder.empty() || !options.tokenizer.empty())
      throw UsageError("the model that is part of the library has a text encoder and a tokenizer of its own");
    auto model = ready_to_paint(Weights::of(builtin_transformer()), options.precision, device);
    auto encoder = load_t5(Weights::of(builtin_text_encoder()));
    const TextToImageParts parts{"builtin", "builtin", "builtin", {}};
    auto tokenizer = Tokenizer::from_bytes(builtin_tokenizer(), "builtin");
    make_ready_and_place(*encoder, tokenizer, parts, model->config(), options.precision, device);
    return TextModel(
        std::make_unique<State>(State{std::move(model), std::move(encoder), std::move(tokenizer), device}));
  });
}

TextModel::TextModel(std::unique_ptr<State> state) : state_(std::move(state)) {}
TextModel::TextModel(TextModel&&) noexcept = default;
TextModel& TextModel::operator=(TextModel&& other) noexcept {
  if (this == &other) return *this;
  std::swap(state_, other.state_);
  api::end(other.state_);
  return *this;
}
TextModel::~TextModel() { api::end(state_); }

int64_t TextModel::picture_size() const {
  const State& state = api::held(state_);
  return state.model->config().sample_size * state.reduction();
}

bool TextModel::fits(const std::string& prompt) const {
  return api::without_bad_alloc([&] {
    const State& state = api::held(state_);
    return !tokenize(state.tokenizer, {prompt}, state.model->config().caption_tokens, Cleaning::lower).cut[0];
  });
}

void TextModel::State::paint(const TextRequest& request, const api::TakePicture& take) const {
  const api::Turn turn(device);
  const PixArtConfig& config = model->config();
  TextPaintRequest wanted = translate(request, config, reduction());
  wanted.options.device = device;
  encode_for(wanted, request.prompts, request.negative, *encoder, tokenizer, config, &forget_mapped_pages);
  const size_t memory = request.decoding_memory.value_or(usual_decoding_memory(device));
  for_batches(wanted.count, wanted.batch, [&](int64_t first, int64_t end) {
    api::give_pictures(paint_batch(*model, wanted, first, end), first, vae.get(), memory, take);
  });
}

std::vector<Picture> TextModel::paint(const TextRequest& request) const {
  return api::without_bad_alloc([&] {
    return api::all_pictures([&](const api::TakePicture& take) { api::held(state_).paint(request, take); });
  });
}

void TextModel::paint(const TextRequest& request, const OnPicture& on_picture) const {
  api::without_bad_alloc([&] { api::held(state_).paint(request, api::given_to(on_picture)); });
}

}  // namespace linnet
