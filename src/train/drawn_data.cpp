#include "train/drawn_data.h"

#include <algorithm>
#include <cmath>

#include "core/naming.h"
#include "core/parallel.h"
#include "core/printable.h"
#include "core/random.h"
#include "io/image.h"
#include "io/resize.h"

namespace linnet {
namespace {

// Streams of random numbers that must not meet.
enum class Stream : uint64_t { order = 1, noise, dropout, flip, latent };

uint64_t stream_seed(int64_t seed, Stream stream, int64_t counter) {
  return mix(mix(static_cast<uint64_t>(seed), static_cast<uint64_t>(stream)), static_cast<uint64_t>(counter));
}

}  // namespace

// Noise and timesteps are drawn for the whole batch in every process, as they come from one stream; pictures
// are read of the share alone.
Batch DrawnData::batch(int64_t step) const {
  const int64_t whole = config_.train.batch, n = whole / share_.count, first = n * share_.index,
                seed = config_.train.seed;
  const std::vector<int64_t> pictures = choose(step);
  const Shape shape = shape_of(pictures.front());
  const int64_t each = shape.numel();
  Batch result;
  result.x0 = Tensor::empty({n, shape[0], shape[1], shape[2]});
  std::vector<Drawn> drawn;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t counter = step * whole + first + i;
    const bool flipped = config_.data.flip && mix(stream_seed(seed, Stream::flip, counter), 0) % 2 == 1;
    drawn.push_back({pictures[static_cast<size_t>(first + i)], counter, flipped});
  }
  float* const values = result.x0.mutable_data<float>();
  parallel_for(n, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      read(drawn[static_cast<size_t>(i)], {values + i * each, static_cast<size_t>(each)});
  });
  add_conditions(drawn, result);
  Generator generator(stream_seed(seed, Stream::noise, step));
  result.noise = generator.normal({whole, shape[0], shape[1], shape[2]});
  result.t = Tensor::empty({whole}, DType::i64);
  for (int64_t i = 0; i < whole; ++i) result.t.mutable_data<int64_t>()[i] = draw_timestep(generator);
  if (n < whole) {
    result.noise = result.noise.rows(first, first + n).clone();
    result.t = result.t.rows(first, first + n).clone();
  }
  return result;
}

int64_t DrawnData::draw_timestep(Generator& generator) const {
  const OptimizerConfig& train = config_.train;
  if (train.timesteps == "uniform") return static_cast<int64_t>(generator.below(diffusion_steps));
  float z = 0;
  generator.normal({&z, 1});
  const double share =
      1.0 / (1.0 + std::exp(-(train.timesteps_mean + train.timesteps_deviation * static_cast<double>(z))));
  return std::min<int64_t>(diffusion_steps - 1,
                           static_cast<int64_t>(share * static_cast<double>(diffusion_steps)));
}

bool DrawnData::is_dropped(int64_t counter, double rate) const {
  Generator generator(stream_seed(config_.train.seed, Stream::dropout, counter));
  return generator.uniform_double() < rate;
}

Tensor DrawnData::latent_noise(int64_t counter, const Shape& shape) const {
  return Generator(stream_seed(config_.train.seed, Stream::latent, counter)).normal(shape);
}

std::vector<int64_t> DrawnData::choose(int64_t step) const {
  const int64_t batch = config_.train.batch;
  std::vector<int64_t> pictures;
  for (int64_t counter = step * batch; counter < (step + 1) * batch; ++counter)
    pictures.push_back(order(counter / count())[static_cast<size_t>(counter % count())]);
  return pictures;
}

const std::vector<int64_t>& DrawnData::order(int64_t epoch) const {
  if (epoch != epoch_) {
    order_ = permutation(count(), stream_seed(config_.train.seed, Stream::order, epoch));
    epoch_ = epoch;
  }
  return order_;
}

void read_pixels(const std::filesystem::path& path, int64_t size, bool flipped, std::span<float> values) {
  const Image whole = read_image(path);
  Image image = naming(printable(path.string()), [&] { return center_crop(whole, size); });
  if (flipped) image = flip_horizontal(image);
  const Tensor tensor = to_tensor({&image, 1});
  std::copy_n(tensor.data<float>(), tensor.numel(), values.data());
}

}  // namespace linnet
