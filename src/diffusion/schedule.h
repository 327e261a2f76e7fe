// The forward process x_t = √ᾱ_t·x₀ + √(1−ᾱ_t)·ε: betas, what follows from them, and respacing to fewer steps.
// Tables are f64, as in the original (Ho et al. 2020; Nichol & Dhariwal 2021).
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace linnet {

class NoiseSchedule {
 public:
  /// β linear from 1e-4 to 0.02 over `steps` (DiT's, with 1000).
  static NoiseSchedule linear(int steps = 1000);
  /// `count` of this schedule's timesteps, evenly spaced from first to last, with the betas that lead from each
  /// to the next. Throws UsageError unless 1 ≤ count ≤ steps().
  NoiseSchedule spaced(int count) const;

  int steps() const { return static_cast<int>(beta.size()); }
  /// ᾱ at any timestep in 0..steps() − 1: between two its logarithm is interpolated, outside it is the
  /// nearest's.
  double alpha_bar_at(double timestep) const;

  std::vector<double> beta, alpha_bar, alpha_bar_previous;
  std::vector<double> posterior_variance;      ///< β̃ of q(x_{t−1} | x_t, x₀)
  std::vector<double> posterior_log_variance;  ///< its logarithm; entry 0, which would be −∞, is entry 1
  std::vector<double> posterior_from_x0, posterior_from_xt;  ///< the posterior mean's two coefficients
  std::vector<int> timestep;                                 ///< what the model is told at each step

 private:
  explicit NoiseSchedule(std::vector<double> betas);
};

/// x_t of a batch: x0, noise (n, c, h, w), on the GPU if one of them is; t (n) indices into the schedule, which
/// are best on the CPU.
Tensor add_noise(const NoiseSchedule& schedule, const Tensor& x0, const Tensor& noise, const Tensor& t);

}  // namespace linnet
