#include "pipeline/generate.h"

#include <array>

#include "core/random.h"

namespace linnet {
namespace {

constexpr std::array<std::string_view, 3> sampler_names = {"ddpm", "ddim", "dpm++"};

// Noise of a batch of which every picture has a generator of its own.
class BatchNoise {
 public:
  explicit BatchNoise(const std::vector<uint64_t>& seeds) {
    for (const uint64_t seed : seeds) generators_.emplace_back(seed);
  }
  Tensor operator()(const Shape& shape) {
    Tensor result = Tensor::empty(shape);
    const auto each = static_cast<size_t>(result.numel()) / generators_.size();
    for (size_t i = 0; i < generators_.size(); ++i)
      generators_[i].normal({result.mutable_data<float>() + i * each, each});
    return result;
  }

 private:
  std::vector<Generator> generators_;
};

}  // namespace

std::string_view name_of(Sampler sampler) { return sampler_names[static_cast<size_t>(sampler)]; }

Sampler sampler_from_name(std::string_view name) {
  for (size_t i = 0; i < sampler_names.size(); ++i)
    if (sampler_names[i] == name) return static_cast<Sampler>(i);
  throw UsageError(fmt::format("there is no sampler \"{}\"; known: {}", name, fmt::join(sampler_names, ", ")));
}

Tensor generate(const DiT& model, const std::vector<int64_t>& classes, const std::vector<uint64_t>& seeds,
                const GenerateOptions& options, const Tensor& start_noise) {
  const DiTConfig& config = model.config();
  check(classes.size() == seeds.size() && !classes.empty(), "as many seeds as classes are needed");
  for (const int64_t y : classes)
    if (y < 0 || y > config.num_classes || (y == config.num_classes && !config.null_class()))
      throw UsageError(fmt::format("class {} lies outside 0..{}", y, config.num_classes - 1));
  if (options.guidance_scale != 1.0f && !config.null_class())
    throw UsageError(
        "this model was trained without dropping classes, so guidance is not possible: use a scale of 1");
  const auto n = static_cast<int64_t>(classes.size());
  const Shape shape{n, config.in_channels, config.input_size, config.input_size};
  auto noise = std::make_shared<BatchNoise>(seeds);
  Tensor x = (*noise)(shape);
  if (start_noise.defined()) {
    check(start_noise.shape() == shape, "the start noise has shape {}, {} is needed",
          to_string(start_noise.shape()), to_string(shape));
    x = start_noise.to(DType::f32);
  }
  const NoiseSchedule full = NoiseSchedule::linear();
  const auto predict_noise = [&](const Tensor& xt, const Tensor& t, const Tensor& y) {
    const Tensor prediction = model.forward(xt, t, y);
    return config.prediction == Prediction::v ? noise_from_v(full, prediction, xt, t) : prediction;
  };
  const Denoiser denoiser = guide(predict_noise, Tensor::from(classes), config.num_classes,
                                  options.guidance_scale, options.guided_channels);
  const SamplingOptions sampling{options.clip_x0, options.on_step};
  const NoiseSource source = [noise](const Shape& wanted) { return (*noise)(wanted); };
  switch (options.sampler) {
    case Sampler::ddpm: return sample_ddpm(denoiser, x, full.spaced(options.steps), source, sampling);
    case Sampler::ddim: return sample_ddim(denoiser, x, full.spaced(options.steps), 0.0f, source, sampling);
    case Sampler::dpmpp: return sample_dpmpp_2m(denoiser, x, full, options.steps, sampling);
  }
  fail("unknown sampler");
}

}  // namespace linnet
