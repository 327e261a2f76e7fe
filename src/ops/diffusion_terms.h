// What one value of a picture costs in a diffusion loss, and how that changes with what is predicted: the same
// formulas for the CPU, which computes in f64, and the GPU, in f32. So nothing here may lose an f32's digits.
#pragma once

#include <cmath>
#include <numbers>

#ifdef __CUDACC__
#define LINNET_HOST_DEVICE __host__ __device__
#else
#define LINNET_HOST_DEVICE
#endif

namespace linnet::ops {

/// Factors for one picture at its timestep: the target is of_noise·ε + of_x0·x₀, and x₀ = of_xt·x_t −
/// of_prediction·prediction.
template <class Real>
struct LossSample {
  Real of_noise, of_x0, of_xt, of_prediction;
  Real weight;                              ///< how often the square of an error in the target counts
  Real from_x0;                             ///< of x₀ in the posterior's mean
  Real min_log_variance, max_log_variance;  ///< between which a variance is predicted
  bool first;                               ///< whether it is timestep 0

  template <class Other>
  LossSample<Other> as() const {
    const auto real = [](Real x) { return static_cast<Other>(x); };
    return {real(of_noise),
            real(of_x0),
            real(of_xt),
            real(of_prediction),
            real(weight),
            real(from_x0),
            real(min_log_variance),
            real(max_log_variance),
            first};
  }
};

/// A value and its derivative.
template <class Real>
struct LossTerm {
  Real value, slope;
};

/// KL(N(m, e^l1) ‖ N(m + distance, e^l2)) in nats, by l2.
template <class Real>
LINNET_HOST_DEVICE LossTerm<Real> gaussian_kl(Real distance, Real l1, Real l2) {
  const Real excess = std::expm1(l1 - l2), square = distance * distance * std::exp(-l2);
  return {Real(0.5) * ((l2 - l1) + excess + square), Real(-0.5) * (excess + square)};
}

/// The original's tanh approximation of the normal distribution function, ½(1 + tanh u) = 1/(1 + e^−2u).
template <class Real>
LINNET_HOST_DEVICE LossTerm<Real> normal_cdf(Real x) {
  const Real c = Real(2) * std::sqrt(Real(2) / std::numbers::pi_v<Real>), cubic = Real(0.044715);
  const Real odds = std::exp(-c * (x + cubic * x * x * x));  // of lying above x
  const Real below = Real(1) / (Real(1) + odds), above = odds > Real(1) ? Real(1) - below : odds * below;
  return {below, below * above * c * (Real(1) + Real(3) * cubic * x * x)};
}

/// −log of the chance that N(mean, e^l) falls into the 8-bit bin of x (in −1..1), by l; the outermost bins are
/// open.
template <class Real>
LINNET_HOST_DEVICE LossTerm<Real> discretised_likelihood(Real x, Real mean, Real l) {
  const Real inverse_std = std::exp(Real(-0.5) * l), half = Real(1.0 / 255.0);
  const Real upper = inverse_std * (x - mean + half), lower = inverse_std * (x - mean - half);
  Real chance, slope;  // d upper / d l = −upper/2, likewise lower
  if (x < Real(-0.999)) {
    const LossTerm<Real> below = normal_cdf(upper);
    chance = below.value;
    slope = Real(-0.5) * below.slope * upper;
  } else if (x > Real(0.999)) {
    const LossTerm<Real> above = normal_cdf(-lower);
    chance = above.value;
    slope = Real(0.5) * above.slope * lower;
  } else {
    // In the tail where both are near 0, not near 1: their difference keeps its digits there.
    const Real side = lower > Real(0) ? Real(-1) : Real(1);
    const LossTerm<Real> a = normal_cdf(side * upper), b = normal_cdf(side * lower);
    chance = side * (a.value - b.value);
    slope = Real(-0.5) * (a.slope * upper - b.slope * lower);
  }
  constexpr Real least = Real(1e-12);
  if (chance < least) return {-std::log(least), Real(0)};
  return {-std::log(chance), -slope / chance};
}

/// What the predicted target is wrong by.
template <class Real>
LINNET_HOST_DEVICE Real target_error(const LossSample<Real>& s, Real predicted, Real x0, Real noise) {
  return predicted - (s.of_noise * noise + s.of_x0 * x0);
}

/// The variational bound in nats, by the raw value v (in about −1..1) that says where between its ends the
/// variance's logarithm lies.
template <class Real>
LINNET_HOST_DEVICE LossTerm<Real> variational_bound(const LossSample<Real>& s, Real predicted, Real v, Real x0,
                                                    Real xt) {
  const Real f = Real(0.5) * (v + Real(1)), l = f * s.max_log_variance + (Real(1) - f) * s.min_log_variance;
  const Real picture = s.of_xt * xt - s.of_prediction * predicted;
  // The first step's posterior is x₀ itself: its mean has nothing of x_t.
  const LossTerm<Real> term = s.first ? discretised_likelihood(x0, picture, l)
                                      : gaussian_kl(s.from_x0 * (picture - x0), s.min_log_variance, l);
  return {term.value, term.slope * Real(0.5) * (s.max_log_variance - s.min_log_variance)};
}

}  // namespace linnet::ops
