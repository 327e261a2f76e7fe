#include "diffusion/loss.h"

#include <cmath>

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/gpu_kernels.h"

namespace linnet {
namespace {

using Sample = ops::LossSample<double>;

Sample sample_at(const NoiseSchedule& schedule, Prediction kind, int64_t timestep) {
  const auto step = static_cast<size_t>(timestep);
  const double alpha_bar = schedule.alpha_bar.at(step), a = std::sqrt(alpha_bar),
               s = std::sqrt(1.0 - alpha_bar);
  Sample sample{};
  sample.weight = 1;
  sample.from_x0 = schedule.posterior_from_x0[step];
  sample.min_log_variance = schedule.posterior_log_variance[step];
  sample.max_log_variance = std::log(schedule.beta[step]);
  sample.first = step == 0;
  switch (kind) {
    case Prediction::epsilon: sample.of_noise = 1, sample.of_xt = 1 / a, sample.of_prediction = s / a; break;
    case Prediction::v:
      sample.of_noise = a, sample.of_x0 = -s, sample.of_xt = a, sample.of_prediction = s;
      break;
    case Prediction::x0:
      sample.of_x0 = 1, sample.of_prediction = -1;
      // As an error of v, which is this one over s; where almost no noise is left, as if some were.
      constexpr double least = 0.05;
      sample.weight = 1 / std::max(s * s, least * least);
  }
  return sample;
}

// Everything that a loss is made of, on one device.
struct Inputs {
  Tensor prediction, x0, xt, noise, teacher;
  std::vector<Sample> samples;
  double noise_weight, variance_weight;
  bool learned;

  int64_t batch() const { return x0.size(0); }
  int64_t n() const { return x0.numel() / x0.size(0); }
};

// Mean square of what two predictions differ by; adds its derivative by the first, times weight, to d.
double distance(const float* student, const float* teacher, int64_t n, double weight, float* d) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double difference = static_cast<double>(student[i]) - static_cast<double>(teacher[i]);
    sum += difference * difference;
    if (d) d[i] += static_cast<float>(weight * 2.0 * difference / static_cast<double>(n));
  }
  return sum / static_cast<double>(n);
}

struct PictureLosses {
  double mse = 0, bound = 0, noise = 0, variance = 0;
};

// Of picture b; sets the gradient's part that is its own (null: none is wanted).
PictureLosses losses_of(const Inputs& in, int64_t b, float* gradient) {
  const int64_t n = in.n(), at = b * n * (in.learned ? 2 : 1);
  const double weight = 1.0 / static_cast<double>(in.batch()), values = static_cast<double>(n);
  const double bits = 1.0 / (std::numbers::ln2 * values);
  const Sample& s = in.samples[static_cast<size_t>(b)];
  const float *predicted = in.prediction.data<float>() + at, *x0 = in.x0.data<float>() + b * n,
              *xt = in.xt.data<float>() + b * n, *noise = in.noise.data<float>() + b * n;
  float* const d = gradient ? gradient + at : nullptr;
  const auto wide = [](float x) { return static_cast<double>(x); };
  PictureLosses sum;
  for (int64_t i = 0; i < n; ++i) {
    const double error = ops::target_error(s, wide(predicted[i]), wide(x0[i]), wide(noise[i]));
    sum.mse += s.weight * error * error / values;
    if (d) d[i] = static_cast<float>(weight * s.weight * 2.0 * error / values);
    if (!in.learned) continue;
    const auto bound =
        ops::variational_bound(s, wide(predicted[i]), wide(predicted[n + i]), wide(x0[i]), wide(xt[i]));
    sum.bound += bits * bound.value;
    if (d) d[n + i] = static_cast<float>(weight * bits * bound.slope);
  }
  if (!in.teacher.defined()) return sum;
  const float* teacher = in.teacher.data<float>() + at;
  sum.noise = s.weight * distance(predicted, teacher, n, weight * s.weight * in.noise_weight, d);
  if (in.learned)
    sum.variance = distance(predicted + n, teacher + n, n, weight * in.variance_weight, d ? d + n : nullptr);
  return sum;
}

void losses_on_cpu(const Inputs& in, DiffusionLoss& loss, Tensor& gradient) {
  float* const losses = loss.losses.mutable_data<float>();
  float* const d = gradient.defined() ? gradient.mutable_data<float>() : nullptr;
  std::vector<double> totals(in.samples.size());
  parallel_for(in.batch(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const PictureLosses sum = losses_of(in, b, d);
      const double each[] = {sum.mse, sum.bound, sum.noise, sum.variance};
      std::transform(each, each + 4, losses + 4 * b, [](double x) { return static_cast<float>(x); });
      totals[static_cast<size_t>(b)] =
          sum.mse + sum.bound + in.noise_weight * sum.noise + in.variance_weight * sum.variance;
    }
  });
  double total = 0;
  for (const double value : totals) total += value;
  *loss.total.mutable_data<float>() = static_cast<float>(total / static_cast<double>(in.batch()));
}

void losses_on_gpu(const Inputs& in, DiffusionLoss& loss, const Tensor& gradient) {
  std::vector<ops::LossSample<float>> samples;
  for (const Sample& sample : in.samples) samples.push_back(sample.as<float>());
  const size_t bytes = samples.size() * sizeof(samples[0]);
  const std::shared_ptr<void> there = allocate_on(in.prediction.device(), bytes);
  gpu().upload(there.get(), samples.data(), bytes);
  const ops::GpuLoss given{in.prediction.view(),
                           in.x0.view(),
                           in.xt.view(),
                           in.noise.view(),
                           in.teacher.view(),
                           static_cast<const ops::LossSample<float>*>(there.get()),
                           in.batch(),
                           in.n(),
                           in.learned,
                           static_cast<float>(in.noise_weight),
                           static_cast<float>(in.variance_weight)};
  ops::gpu_kernels().loss.diffusion(given, loss.losses.view(), loss.total.view(), gradient.view());
}

// gradient·g, in the gradient's own memory.
Tensor scaled(Tensor gradient, const Tensor& g) {
  if (gradient.on_gpu()) {
    ops::gpu_kernels().loss.scale_by(gradient.view(), g.to(gradient.device()).view(), gradient.view(),
                                     gradient.numel());
  } else if (const float scale = g.item(); scale != 1.0f) {
    float* const d = gradient.mutable_data<float>();
    for (int64_t i = 0; i < gradient.numel(); ++i) d[i] *= scale;
  }
  return gradient;
}

Inputs gathered(const NoiseSchedule& schedule, Prediction kind, const Tensor& prediction, const Tensor& x0,
                const Tensor& xt, const Tensor& noise, const Tensor& t, const Teaching& teaching) {
  const int64_t channels = x0.size(1);
  const bool learned = prediction.size(1) == 2 * channels;
  check(learned || prediction.size(1) == channels,
        "a prediction of shape {} does not belong to pictures of shape {}", to_string(prediction.shape()),
        to_string(x0.shape()));
  check(xt.shape() == x0.shape() && noise.shape() == x0.shape() && t.numel() == x0.size(0),
        "pictures {}, the same with noise {}, noise {} and timesteps {} do not agree", to_string(x0.shape()),
        to_string(xt.shape()), to_string(noise.shape()), to_string(t.shape()));
  check(!teaching.prediction.defined() || teaching.prediction.shape() == prediction.shape(),
        "the teacher's prediction has shape {}, the student's {}", to_string(teaching.prediction.shape()),
        to_string(prediction.shape()));
  for (const Tensor& tensor : {prediction, x0, xt, noise})
    check(tensor.dtype() == DType::f32, "a loss is of tensors of f32, not {}", name_of(tensor.dtype()));
  const Device& device = prediction.device();
  Inputs in{prediction.detach(),
            x0.to(device),
            xt.to(device),
            noise.to(device),
            teaching.prediction.to(device),
            {},
            teaching.noise,
            teaching.variance,
            learned};
  const Tensor steps = t.host();
  for (const int64_t step : steps.values<int64_t>()) in.samples.push_back(sample_at(schedule, kind, step));
  return in;
}

}  // namespace

DiffusionLoss diffusion_loss(const NoiseSchedule& schedule, Prediction kind, const Tensor& prediction,
                             const Tensor& x0, const Tensor& xt, const Tensor& noise, const Tensor& t,
                             const Teaching& teaching) {
  const Inputs in = gathered(schedule, kind, prediction, x0, xt, noise, t, teaching);
  const bool record = wants_grad(prediction);
  const Device& device = prediction.device();
  Tensor gradient = record ? Tensor::empty(prediction.shape(), DType::f32, device) : Tensor();
  DiffusionLoss loss{Tensor::empty({1}, DType::f32, device), Tensor::empty({in.batch(), 4}, DType::f32, device),
                     in.learned, in.teacher.defined()};
  device.is_gpu() ? losses_on_gpu(in, loss, gradient) : losses_on_cpu(in, loss, gradient);
  if (record)
    record_backward(loss.total, [gradient, slot = prediction.grad_slot()](const Tensor& g) {
      accumulate_grad(slot, scaled(gradient, g));
    });
  return loss;
}

}  // namespace linnet
