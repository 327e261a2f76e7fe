#include "pipeline/sampling.h"

#include <array>
#include <cmath>

#include "core/printable.h"
#include "core/random.h"
#include "diffusion/recorded.h"
#include "ops/reduce.h"

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

// What is guided may be any prediction: the noise follows from it by a factor and a multiple of x_t.
Denoiser with_guidance(const Conditioned& model, const GenerateOptions& options) {
  const Denoiser plain = recorded(model.wanted);
  if (options.guidance_scale == 1.0f) return plain;
  const Denoiser guided = recorded(guide(model, options.guidance_scale, options.guided_channels));
  return [guided, plain, interval = options.guided](const Tensor& x, const Tensor& t) {
    return interval.holds(t.data<float>()[0]) ? guided(x, t) : plain(x, t);
  };
}

}  // namespace

std::string_view name_of(Sampler sampler) { return sampler_names[static_cast<size_t>(sampler)]; }

Sampler sampler_from_name(std::string_view name) {
  for (size_t i = 0; i < sampler_names.size(); ++i)
    if (sampler_names[i] == name) return static_cast<Sampler>(i);
  throw UsageError(
      fmt::format("there is no sampler \"{}\"; known: {}", printable(name), fmt::join(sampler_names, ", ")));
}

void check_options(const GenerateOptions& o) {
  const int most_steps = o.sampler == Sampler::dpmpp ? 999 : 1000;
  if (o.steps < 1 || o.steps > most_steps)
    throw UsageError(fmt::format("{} takes 1 to {} steps, not {}", name_of(o.sampler), most_steps, o.steps));
  if (!std::isfinite(o.guidance_scale)) throw UsageError("the guidance scale must be a number");
  if (!(o.guided.from <= o.guided.to))
    throw UsageError(fmt::format("there is no time between timesteps {} and {}", o.guided.from, o.guided.to));
}

namespace {

// A picture of such numbers would be black, and look as if it were one.
Tensor checked(Tensor samples) {
  check(ops::all_finite(samples),
        "what was painted is not finite (NaN or infinite): the model's weights may be damaged, the guidance "
        "scale too large, or the type of the products too narrow, of which f32 is the widest");
  return samples;
}

}  // namespace

Tensor sample(const Conditioned& model, Prediction kind, const Shape& each, const std::vector<uint64_t>& seeds,
              const GenerateOptions& options, const Tensor& start_noise) {
  check(each.rank() == 3 && !seeds.empty(), "samples of shape {} cannot be drawn", to_string(each));
  const Shape shape{static_cast<int64_t>(seeds.size()), each[0], each[1], each[2]};
  auto noise = std::make_shared<BatchNoise>(seeds);
  Tensor x = (*noise)(shape);
  if (start_noise.defined()) {
    check(start_noise.shape() == shape, "the start noise has shape {}, {} is needed",
          to_string(start_noise.shape()), to_string(shape));
    x = start_noise.to(DType::f32);
  }
  x = x.to(options.device);
  const NoiseSchedule full = NoiseSchedule::linear();
  const Denoiser denoiser = [&full, kind, predict = with_guidance(model, options)](const Tensor& xt,
                                                                                   const Tensor& t) {
    return noise_from(kind, full, predict(xt, t), xt, t);
  };
  const SamplingOptions sampling{options.clip_x0, options.on_step};
  const NoiseSource source = [noise](const Shape& wanted) { return (*noise)(wanted); };
  switch (options.sampler) {
    case Sampler::ddpm: return checked(sample_ddpm(denoiser, x, full.spaced(options.steps), source, sampling));
    case Sampler::ddim:
      return checked(sample_ddim(denoiser, x, full.spaced(options.steps), 0.0f, source, sampling));
    case Sampler::dpmpp:
      return checked(sample_dpmpp_2m(denoiser, x, full, options.steps, sampling, options.grid));
  }
  fail("unknown sampler");
}

}  // namespace linnet
