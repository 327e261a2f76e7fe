// The public interface (include/linnet/linnet.h) on top of the pipeline.
#include <linnet/linnet.h>

#include "builtin/builtin_model.h"
#include "core/parallel.h"
#include "io/image.h"
#include "ops/matmul.h"
#include "pipeline/classes.h"
#include "pipeline/decode.h"
#include "pipeline/paint.h"
#include "store/model_file.h"
#include "store/vae_file.h"

namespace linnet {

struct Model::State {
  LoadedModel loaded;
  std::unique_ptr<Vae> vae = nullptr;  // none: the model paints pixels
};

namespace {

std::string_view name_of(Precision precision) {
  constexpr std::string_view names[] = {"auto", "f32", "bf16", "int8"};
  return names[static_cast<size_t>(precision)];
}

LoadedModel ready_to_paint(LoadedModel loaded, Precision precision) {
  loaded.class_names = names_of_classes(std::move(loaded.class_names), loaded.model->config().num_classes);
  loaded.model->set_product_dtype(loaded.model->product_dtype_from_name(name_of(precision)));
  nn::freeze(*loaded.model);
  return loaded;
}

std::unique_ptr<Vae> load_decoder(const DiT& model, const std::filesystem::path& path) {
  const int64_t channels = model.config().in_channels;
  if (channels == 3) return nullptr;
  if (path.empty())
    throw UsageError(fmt::format("this model makes latents of {} channels and needs an autoencoder", channels));
  std::unique_ptr<Vae> vae = load_vae(path);
  check_decodes(*vae, channels);
  vae->set_product_dtype(model.product_dtype() == DType::f32 ? DType::f32 : ops::fastest_product_dtype());
  return vae;
}

PaintRequest translate(const Request& request, const LoadedModel& loaded) {
  const DiTConfig& config = loaded.model->config();
  PaintRequest result;
  for (const std::string& name : request.classes)
    result.classes.push_back(find_class(name, loaded.class_names, config.num_classes));
  result.count = request.count;
  result.seed = request.seed;
  result.batch = request.batch;
  result.options.sampler = sampler_from_name(request.sampler);
  result.options.steps = request.steps;
  result.options.guidance_scale = request.guidance_scale;
  result.options.clip_x0 = config.in_channels == 3;
  if (request.on_step)
    result.options.on_step = [on_step = request.on_step](const SamplingStep& step) {
      if (!on_step(step.index + 1, step.count)) throw Cancelled();
    };
  return result;
}

}  // namespace

Model::Model(const std::filesystem::path& file, Precision precision, const std::filesystem::path& autoencoder)
    : state_(std::make_unique<State>(State{ready_to_paint(load_model(file), precision)})) {
  const bool inside = autoencoder.empty() && std::filesystem::is_directory(file / "vae");
  state_->vae = load_decoder(*state_->loaded.model, inside ? file / "vae" : autoencoder);
}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

Model Model::builtin(Precision precision) {
  return Model(
      std::make_unique<State>(State{ready_to_paint(load_model(Weights::of(builtin_model())), precision)}));
}

const std::vector<std::string>& Model::class_names() const { return state_->loaded.class_names; }
int64_t Model::class_count() const { return state_->loaded.model->config().num_classes; }
int64_t Model::picture_size() const {
  return state_->loaded.model->config().input_size * (state_->vae ? state_->vae->config().reduction() : 1);
}

std::vector<Picture> Model::paint(const Request& request) const {
  const DiT& model = *state_->loaded.model;
  std::vector<Picture> pictures;
  linnet::paint(model, translate(request, state_->loaded), [&](int64_t, const Tensor& samples) {
    for (int64_t i = 0; i < samples.size(0); ++i) {
      const Tensor sample = samples.rows(i, i + 1);
      const Tensor picture = state_->vae ? decode_samples(*state_->vae, sample, request.memory) : sample;
      Image image = to_image(picture.reshape({picture.size(1), picture.size(2), picture.size(3)}));
      pictures.push_back({image.width, image.height, std::move(image.rgb)});
    }
  });
  return pictures;
}

void set_thread_count(int count) {
  if (count < 1 || count > 1024)
    throw UsageError(fmt::format("the number of threads lies in 1..1024, not {}", count));
  set_threads(count);
}

}  // namespace linnet
