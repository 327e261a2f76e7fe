// Painting from words, as the public interface has it (include/linnet/linnet.h).
#include <algorithm>

#include "api/common.h"
#include "builtin/builtin_model.h"
#include "io/file.h"
#include "io/text.h"
#include "ops/matmul.h"
#include "pipeline/decode.h"
#include "pipeline/memory_plan.h"
#include "pipeline/paint_text.h"
#include "pipeline/text_encoding.h"
#include "store/bundle.h"
#include "store/dit_weights.h"
#include "store/model_file.h"
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
  if (looks_like_dit(find_model_weights(file, Choice::ema)))
    throw UsageError(fmt::format("{}: this is a model of classes: use Model", file.source()));
  std::unique_ptr<PixArt> model = load_pixart(find_pixart_weights(file, Choice::ema)).model;
  model->set_product_dtype(model->product_dtype_from_name(api::name_of(precision), device));
  nn::freeze(*model);
  const int64_t side = model->config().sample_size;
  place(*model, device, 2 * default_batch(model->config(), side, side), side, side);  // with guidance
  model->set_on_block(&forget_mapped_pages);  // what is packed is not needed in the file
  return model;
}

// Checks that they belong together.
void make_ready(T5Encoder& encoder, const Tokenizer& tokenizer, const PixArt& model, const Device& device) {
  check_belongs(encoder.config(), "the text encoder", model.config());
  check_belongs(tokenizer, "the tokenizer", encoder.config());
  encoder.set_product_dtype(model.product_dtype() == DType::f32 ? DType::f32
                                                                : ops::fastest_wide_product_dtype(device));
  place(encoder, device, std::max(tokens_at_once, model.config().caption_tokens));
}

std::filesystem::path or_inside(const std::filesystem::path& given, const std::filesystem::path& model,
                                const char* part) {
  if (!given.empty()) return given;
  if (is_folder(model / part)) return model / part;
  throw UsageError(fmt::format("{} holds no folder \"{}\": name one", printable(model.string()), part));
}

SizeInPixels size_of(const TextRequest& request, const PixArtConfig& config, int64_t reduction) {
  const int64_t base = config.sample_size * reduction;
  if (request.width == 0 && request.height == 0) return {base, base};
  if (request.width < 1 || request.height < 1 || request.width > 16384 || request.height > 16384)
    throw UsageError(fmt::format("pictures of {} x {} pixels are impossible", request.width, request.height));
  return snap_size({request.height, request.width}, base, config.patch_size * reduction);
}

TextPaintRequest translate(const TextRequest& request, const PixArtConfig& config, int64_t reduction) {
  if (request.prompts.empty()) throw UsageError("there is no prompt to paint");
  TextPaintRequest result;
  result.count = request.count == 0 ? static_cast<int64_t>(request.prompts.size()) : request.count;
  const SizeInPixels size = size_of(request, config, reduction);
  result.height = size.height / reduction;
  result.width = size.width / reduction;
  result.seed = request.seed;
  result.batch = request.batch;
  result.options = {.sampler = sampler_from_name(request.sampler),
                    .steps = request.steps,
                    .guidance_scale = request.guidance_scale.value_or(usual_guidance(config)),
                    .guided = request.guided ? api::interval_of(*request.guided) : usual_interval(config),
                    .guided_channels = all_channels,
                    .clip_x0 = config.in_channels == 3,
                    .on_step = api::watched_by(request.on_step)};
  check_request(result, config, true);
  if (result.batch == 0) result.batch = default_batch(config, result.height, result.width);
  return result;
}

}  // namespace

TextModel::TextModel(const std::filesystem::path& path, const TextModelOptions& options)
    : TextModel(api::without_bad_alloc([&] {
        const Device device = device_from_name(options.device);
        const api::Turn turn(device);
        auto model = ready_to_paint(Weights::open(path), options.precision, device);
        auto encoder = load_t5(or_inside(options.text_encoder, path, "text_encoder"));
        auto tokenizer = Tokenizer::open(or_inside(options.tokenizer, path, "tokenizer"));
        make_ready(*encoder, tokenizer, *model, device);
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
    auto tokenizer = Tokenizer::from_bytes(builtin_tokenizer(), "the tokenizer");
    make_ready(*encoder, tokenizer, *model, device);
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
  std::vector<std::string> texts = request.prompts;
  texts.resize(std::min(texts.size(), static_cast<size_t>(wanted.count)));  // of which there are pictures
  const auto prompts = static_cast<int64_t>(texts.size());
  if (wanted.options.guidance_scale != 1.0f) texts.push_back(request.negative);
  const auto ids = tokenize(tokenizer, texts, config.caption_tokens, Cleaning::lower).ids;
  take_states(wanted, encode_each(*encoder, ids, &forget_mapped_pages), prompts);
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
