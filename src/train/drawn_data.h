// What a training on a set of pictures draws, whatever they are and whatever the model is told of them: order,
// mirror, noise, timestep and dropped conditions, each a pure function of the seed and the step.
#pragma once

#include <span>

#include "train/data.h"

namespace linnet {

/// Timesteps of the schedule that training draws from.
inline constexpr int64_t diffusion_steps = 1000;

class DrawnData : public BatchSource {
 public:
  DrawnData(const TrainConfig& config, const ProcessShare& share) : config_(config), share_(share) {}

  Batch batch(int64_t step) const override;
  int64_t count() const override = 0;

 protected:
  /// One picture's turn: counter is how many came before it since the run began.
  struct Drawn {
    int64_t picture = 0, counter = 0;
    bool flipped = false;
  };

  /// Which pictures make up a step's batch; all must be of one shape.
  virtual std::vector<int64_t> choose(int64_t step) const;
  /// Of a picture, (c, h, w).
  virtual Shape shape_of(int64_t) const { return picture_shape(config_.model); }
  /// One picture's values, (c, h, w).
  virtual void read(const Drawn& drawn, std::span<float> values) const = 0;
  /// What the model is told of them, which are this process's share.
  virtual void add_conditions(const std::vector<Drawn>& drawn, Batch& batch) const = 0;

  /// Whether this turn is without its condition.
  bool is_dropped(int64_t counter, double rate) const;
  /// What latents are drawn with on this turn.
  Tensor latent_noise(int64_t counter, const Shape& shape) const;

  /// The order of an epoch, each a permutation of its own. Good until the next call: batches are made on one
  /// thread.
  const std::vector<int64_t>& order(int64_t epoch) const;

  const TrainConfig config_;

 private:
  const ProcessShare share_;

  int64_t draw_timestep(Generator& generator) const;

  mutable int64_t epoch_ = -1;  // of order_
  mutable std::vector<int64_t> order_;
};

/// A picture as the model takes it: cropped to a square, scaled, values in −1..1 by (channel, y, x).
void read_pixels(const std::filesystem::path& path, int64_t size, bool flipped, std::span<float> values);

/// Pictures with texts. Throws Error if they cannot be read or do not fit the model.
std::unique_ptr<BatchSource> open_text_data(const TrainConfig& config, const ProcessShare& share);

}  // namespace linnet
