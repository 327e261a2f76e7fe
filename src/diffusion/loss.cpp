#include "diffusion/loss.h"

#include <cmath>
#include <numbers>

#include "core/parallel.h"
#include "core/tape.h"

namespace linnet {
namespace {

struct Term {
  double value = 0, slope = 0;  ///< and its derivative by the log variance
};

// KL(N(m1, e^l1) ‖ N(m2, e^l2)) in nats.
Term gaussian_kl(double m1, double l1, double m2, double l2) {
  const double ratio = std::exp(l1 - l2), distance = (m1 - m2) * (m1 - m2) * std::exp(-l2);
  return {0.5 * (-1.0 + l2 - l1 + ratio + distance), 0.5 * (1.0 - ratio - distance)};
}

// The original's tanh approximation of the normal distribution function.
Term normal_cdf(double x) {
  const double c = std::sqrt(2.0 / std::numbers::pi);
  const double t = std::tanh(c * (x + 0.044715 * x * x * x));
  return {0.5 * (1.0 + t), 0.5 * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * x * x)};
}

// −log of the chance that N(mean, e^l) falls into the 8-bit bin of x (in −1..1); the outermost bins are open.
Term discretised_likelihood(double x, double mean, double l) {
  const double inverse_std = std::exp(-0.5 * l), centred = x - mean;
  const double upper = inverse_std * (centred + 1.0 / 255.0), lower = inverse_std * (centred - 1.0 / 255.0);
  const Term above = normal_cdf(upper), below = normal_cdf(lower);
  // d upper / d l = −upper/2, likewise lower.
  double chance = above.value - below.value, slope = -0.5 * (above.slope * upper - below.slope * lower);
  if (x < -0.999) {
    chance = above.value;
    slope = -0.5 * above.slope * upper;
  } else if (x > 0.999) {
    chance = 1.0 - below.value;
    slope = 0.5 * below.slope * lower;
  }
  if (chance < 1e-12) return {-std::log(1e-12), 0.0};
  return {-std::log(chance), -slope / chance};
}

// At one timestep: the target is noise·ε + picture·x₀, and x₀ = xt·x_t − error·prediction. The square of an
// error in the target counts `weight` times.
struct Coefficients {
  double noise, picture, xt, error, weight = 1;

  Coefficients(Prediction kind, double kept) {
    const double a = std::sqrt(kept), s = std::sqrt(1.0 - kept);
    switch (kind) {
      case Prediction::epsilon: noise = 1, picture = 0, xt = 1 / a, error = s / a; break;
      case Prediction::v: noise = a, picture = -s, xt = a, error = s; break;
      case Prediction::x0:
        noise = 0, picture = 1, xt = 0, error = -1;
        // As an error of v, which is this one over s; where almost no noise is left, as if some were.
        constexpr double least = 0.05;
        weight = 1 / std::max(s * s, least * least);
    }
  }
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

// One picture's losses; sets d(mse + bound)/d(prediction) where gradient is not null.
struct Picture {
  const float *predicted, *variance, *x0, *xt, *noise;  // variance: null unless it is learned
  float *dpredicted, *dvariance;                        // null when no gradient is wanted
  int64_t n;

  double square_error(const Coefficients& c, double weight) const {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double error = predicted[i] - (c.noise * noise[i] + c.picture * x0[i]);
      sum += error * error;
      if (dpredicted)
        dpredicted[i] = static_cast<float>(weight * c.weight * 2.0 * error / static_cast<double>(n));
    }
    return c.weight * sum / static_cast<double>(n);
  }

  double variational_bound(const NoiseSchedule& schedule, const Coefficients& c, size_t t,
                           double weight) const {
    const double from_x0 = schedule.posterior_from_x0[t], from_xt = schedule.posterior_from_xt[t];
    const double low = schedule.posterior_log_variance[t], high = std::log(schedule.beta[t]);
    const double bits = 1.0 / (std::numbers::ln2 * static_cast<double>(n));
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double f = 0.5 * (static_cast<double>(variance[i]) + 1.0), l = f * high + (1.0 - f) * low;
      const double picture = c.xt * xt[i] - c.error * predicted[i];
      const double mean = from_x0 * picture + from_xt * xt[i];
      const Term term = t == 0 ? discretised_likelihood(x0[i], mean, l)
                               : gaussian_kl(from_x0 * x0[i] + from_xt * xt[i], low, mean, l);
      sum += term.value;
      if (dvariance) dvariance[i] = static_cast<float>(weight * bits * term.slope * 0.5 * (high - low));
    }
    return sum * bits;
  }
};

}  // namespace

DiffusionLoss diffusion_loss(const NoiseSchedule& schedule, Prediction kind, const Tensor& prediction,
                             const Tensor& x0, const Tensor& xt, const Tensor& noise, const Tensor& t,
                             const Teaching& teaching) {
  const int64_t batch = x0.size(0), channels = x0.size(1), n = x0.numel() / batch;
  const bool learned = prediction.size(1) == 2 * channels;
  check(learned || prediction.size(1) == channels,
        "a prediction of shape {} does not belong to pictures of shape {}", to_string(prediction.shape()),
        to_string(x0.shape()));
  const bool taught = teaching.prediction.defined();
  check(!taught || teaching.prediction.shape() == prediction.shape(),
        "the teacher's prediction has shape {}, the student's {}", to_string(teaching.prediction.shape()),
        to_string(prediction.shape()));
  const bool record = wants_grad(prediction);
  Tensor gradient = record ? Tensor::empty(prediction.shape()) : Tensor();
  float* dprediction = record ? gradient.mutable_data<float>() : nullptr;
  const float* predicted = prediction.data<float>();
  DiffusionLoss loss;
  loss.mse.resize(static_cast<size_t>(batch));
  loss.bound.resize(learned ? static_cast<size_t>(batch) : 0);
  loss.noise_distance.resize(taught ? static_cast<size_t>(batch) : 0);
  loss.variance_distance.resize(taught && learned ? static_cast<size_t>(batch) : 0);
  const float* taught_data = taught ? teaching.prediction.data<float>() : nullptr;
  const int64_t stride = learned ? 2 * n : n;
  parallel_for(batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const float* p = predicted + b * stride;
      float* d = dprediction ? dprediction + b * stride : nullptr;
      const Picture picture{p,
                            learned ? p + n : nullptr,
                            x0.data<float>() + b * n,
                            xt.data<float>() + b * n,
                            noise.data<float>() + b * n,
                            d,
                            d && learned ? d + n : nullptr,
                            n};
      const double weight = 1.0 / static_cast<double>(batch);
      const auto step = static_cast<size_t>(t.data<int64_t>()[b]);
      const Coefficients c(kind, schedule.alpha_bar[step]);
      loss.mse[static_cast<size_t>(b)] = picture.square_error(c, weight);
      if (learned) loss.bound[static_cast<size_t>(b)] = picture.variational_bound(schedule, c, step, weight);
      if (!taught) continue;
      const float* teacher = taught_data + b * stride;
      loss.noise_distance[static_cast<size_t>(b)] =
          c.weight * distance(p, teacher, n, weight * c.weight * teaching.noise, d);
      if (learned)
        loss.variance_distance[static_cast<size_t>(b)] =
            distance(p + n, teacher + n, n, weight * teaching.variance, d ? d + n : nullptr);
    }
  });
  double total = 0;
  for (const double value : loss.mse) total += value;
  for (const double value : loss.bound) total += value;
  for (const double value : loss.noise_distance) total += teaching.noise * value;
  for (const double value : loss.variance_distance) total += teaching.variance * value;
  loss.total = Tensor::full({1}, static_cast<float>(total / static_cast<double>(batch)));
  if (record)
    record_backward(loss.total, [gradient, slot = prediction.grad_slot()](const Tensor& g) mutable {
      if (const float scale = g.item(); scale != 1.0f)
        for (int64_t i = 0; i < gradient.numel(); ++i) gradient.mutable_data<float>()[i] *= scale;
      accumulate_grad(slot, gradient);
    });
  return loss;
}

}  // namespace linnet
