// Painting from classes, as the public interface has it (include/linnet/linnet.h).
#include <algorithm>

#include "api/common.h"
#include "builtin/builtin_model.h"
#include "pipeline/classes.h"
#include "pipeline/decode.h"
#include "pipeline/paint.h"
#include "store/dit_file.h"
#include "store/transformer_file.h"

namespace linnet {

struct Model::State {
  LoadedDiT loaded;
  Device device;
  std::unique_ptr<Vae> vae = nullptr;  // none: the model paints pixels

  void paint(const Request& request, const api::TakePicture& take) const;
};

namespace {

LoadedDiT ready_to_paint(LoadedDiT loaded, Precision precision, const Device& device) {
  loaded.class_names = names_of_classes(std::move(loaded.class_names), loaded.model->config().num_classes);
  const DType products = loaded.model->product_dtype_from_name(api::name_of(precision), device);
  constexpr int64_t pictures = 16;  // which, with guidance, is eight
  make_ready(*loaded.model, products, device, pictures);
  return loaded;
}

LoadedDiT load_model_of_classes(const std::filesystem::path& path) {
  const Weights file = Weights::open(path);
  if (holds_pixart(file))
    throw UsageError(fmt::format("{}: this is a text-to-image model: use TextModel", file.source()));
  return load_dit(find_dit_weights(file));
}

PaintRequest translate(const Request& request, const LoadedDiT& loaded, const Device& device) {
  const DiTConfig& config = loaded.model->config();
  PaintRequest result;
  for (const std::string& name : request.classes)
    result.classes.push_back(find_class(name, loaded.class_names, config.num_classes));
  const auto named = static_cast<int64_t>(request.classes.size());
  result.count = request.count == 0 ? std::max<int64_t>(1, named) : request.count;
  result.seed = request.seed;
  result.batch = request.batch;
  result.options.sampler = sampler_from_name(request.sampler);
  result.options.steps = request.steps;
  result.options.guidance_scale = request.guidance_scale;
  result.options.guided = api::interval_of(request.guided);
  result.options.clip_x0 = config.in_channels == 3;
  result.options.device = device;
  result.options.on_step = api::watched_by(request.on_step);
  return result;
}

}  // namespace

Model::Model(const std::filesystem::path& file, const ModelOptions& options)
    : Model(api::without_bad_alloc([&] {
        const Device device = device_from_name(options.device);
        const api::Turn turn(device);
        auto state = std::make_unique<State>(
            State{ready_to_paint(load_model_of_classes(file), options.precision, device), device});
        const DiT& model = *state->loaded.model;
        state->vae = api::decoder_for(model.config().in_channels, file, options.autoencoder,
                                      model.product_dtype(), device);
        return state;
      })) {}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&& other) noexcept {
  if (this == &other) return *this;
  std::swap(state_, other.state_);
  api::end(other.state_);
  return *this;
}
Model::~Model() { api::end(state_); }

Model Model::builtin(const ModelOptions& options) {
  return api::without_bad_alloc([&] {
    const Device device = device_from_name(options.device);
    const api::Turn turn(device);
    api::check_decodes_nothing(options.autoencoder);
    return Model(std::make_unique<State>(
        State{ready_to_paint(load_dit(Weights::of(builtin_model())), options.precision, device), device}));
  });
}

const std::vector<std::string>& Model::class_names() const { return api::held(state_).loaded.class_names; }
int64_t Model::class_count() const { return api::held(state_).loaded.model->config().num_classes; }
int64_t Model::picture_size() const {
  const State& state = api::held(state_);
  return state.loaded.model->config().input_size * (state.vae ? state.vae->config().reduction() : 1);
}

void Model::State::paint(const Request& request, const api::TakePicture& take) const {
  const api::Turn turn(device);
  const size_t memory = request.decoding_memory.value_or(usual_decoding_memory(device));
  linnet::paint(*loaded.model, translate(request, loaded, device), [&](int64_t first, const Tensor& samples) {
    api::give_pictures(samples, first, vae.get(), memory, take);
  });
}

std::vector<Picture> Model::paint(const Request& request) const {
  return api::without_bad_alloc([&] {
    return api::all_pictures([&](const api::TakePicture& take) { api::held(state_).paint(request, take); });
  });
}

void Model::paint(const Request& request, const OnPicture& on_picture) const {
  api::without_bad_alloc([&] { api::held(state_).paint(request, api::given_to(on_picture)); });
}

}  // namespace linnet
