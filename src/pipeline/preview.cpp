#include "pipeline/preview.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"
#include "pipeline/decode.h"

namespace linnet {
namespace {

constexpr int64_t side = 16, border = 2;

// Random latents of variance 1 in patches of several sizes. A latent is also coloured by those around it, which
// in a picture are mostly like it: with independent ones colours would come out too pale. (n, channels, side,
// side)
Tensor mottled_latents(int64_t channels) {
  const int64_t pictures = std::max<int64_t>(2, channels / 2);
  const float share = 1 / std::sqrt(3.0f);
  Tensor latents = Tensor::zeros({pictures, channels, side, side});
  Generator generator(0);
  for (const int64_t tile : {4, 8, 16}) {
    const int64_t across = side / tile;
    const Tensor noise = generator.normal({pictures * channels, across, across});
    for (int64_t i = 0; i < latents.numel(); ++i) {
      const int64_t x = i % side / tile, y = i / side % side / tile, plane = i / (side * side);
      latents.mutable_data<float>()[i] += share * noise.data<float>()[(plane * across + y) * across + x];
    }
  }
  return latents;
}

// The mean of a square of pixels in one channel.
double mean_of(const float* plane, int64_t width, int64_t x, int64_t y, int64_t size) {
  double sum = 0;
  for (int64_t row = y * size; row < (y + 1) * size; ++row)
    for (int64_t column = x * size; column < (x + 1) * size; ++column) sum += plane[row * width + column];
  return sum / static_cast<double>(size * size);
}

// Gauss-Jordan of `unknowns` equations (unknowns, unknowns + 3), positive definite; their last three columns
// are the solutions, returned as (unknowns, 3).
std::vector<double> solve(std::vector<double> equations, size_t unknowns) {
  const size_t width = unknowns + 3;
  for (size_t r = 0; r < unknowns; ++r) {
    double* row = &equations[r * width];
    const double pivot = row[r];
    for (size_t k = 0; k < width; ++k) row[k] /= pivot;
    for (size_t other = 0; other < unknowns; ++other) {
      if (other == r) continue;
      double* changed = &equations[other * width];
      const double factor = changed[r];
      for (size_t k = 0; k < width; ++k) changed[k] -= factor * row[k];
    }
  }
  std::vector<double> solution;
  for (size_t r = 0; r < unknowns; ++r)
    for (size_t k = unknowns; k < width; ++k) solution.push_back(equations[r * width + k]);
  return solution;
}

}  // namespace

// Least squares of the colour of a latent's square of pixels = latent · matrix + constant. The rims are left
// out, as what is around a picture colours them too.
SamplePreview::SamplePreview(const Vae& vae, size_t memory, const Device& device)
    : channels_(vae.config().latent_channels) {
  const Tensor latents = mottled_latents(channels_);  // (n, channels, side, side)
  const Tensor decoded =
      decode_samples(vae, latents.to(device), memory);  // (n, 3, side·reduction, side·reduction)
  const int64_t reduction = vae.config().reduction(), width = side * reduction, inner = side - 2 * border;
  const auto unknowns = static_cast<size_t>(channels_) + 1;
  std::vector<double> equations(unknowns * (unknowns + 3)), terms(unknowns + 3);
  for (int64_t i = 0; i < latents.size(0) * inner * inner; ++i) {
    const int64_t n = i / (inner * inner), y = i / inner % inner + border, x = i % inner + border;
    for (int64_t c = 0; c < channels_; ++c)
      terms[static_cast<size_t>(c)] = latents.data<float>()[((n * channels_ + c) * side + y) * side + x];
    terms[unknowns - 1] = 1;
    for (int64_t c = 0; c < 3; ++c)
      terms[unknowns + static_cast<size_t>(c)] =
          mean_of(decoded.data<float>() + (n * 3 + c) * width * width, width, x, y, reduction);
    for (size_t r = 0; r < unknowns; ++r)
      for (size_t k = 0; k < terms.size(); ++k) equations[r * terms.size() + k] += terms[r] * terms[k];
  }
  for (size_t r = 0; r < unknowns; ++r) equations[r * terms.size() + r] += 1e-3;
  matrix_ = solve(std::move(equations), unknowns);
}

Tensor SamplePreview::operator()(const Tensor& given) const {
  const Tensor samples = given.host();
  if (channels_ == 0) return samples;
  const int64_t n = samples.size(0), pixels = samples.size(2) * samples.size(3);
  Tensor result = Tensor::empty({n, 3, samples.size(2), samples.size(3)});
  for (int64_t i = 0; i < result.numel(); ++i) {
    const int64_t picture = i / (3 * pixels), colour = i / pixels % 3;
    const float* latent = samples.data<float>() + picture * channels_ * pixels + i % pixels;
    double sum = matrix_[static_cast<size_t>(channels_ * 3 + colour)];
    for (int64_t c = 0; c < channels_; ++c)
      sum += latent[c * pixels] * matrix_[static_cast<size_t>(c * 3 + colour)];
    result.mutable_data<float>()[i] = static_cast<float>(sum);
  }
  return result;
}

}  // namespace linnet
