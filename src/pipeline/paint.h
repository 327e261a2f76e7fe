// Many pictures from one request, batch by batch, so that memory depends on the batch and not on how many are
// wanted.
#pragma once

#include <algorithm>
#include <functional>

#include "pipeline/generate.h"

namespace linnet {

struct PaintRequest {
  std::vector<int64_t> classes;  ///< cycled through; empty: every class in turn
  int64_t count = 1;
  uint64_t seed = 0;  ///< picture i is drawn from seed + i
  int64_t batch = 0;  ///< pictures at once; 0: default_batch()
  Tensor noise = {};  ///< (count, c, h, w) start noise instead of the seeds'
  std::function<bool(int64_t first, int64_t end)> wanted = {};  ///< false leaves a batch out; none: all
  GenerateOptions options;

  int64_t class_of(int64_t picture, const DiTConfig& model) const;
  uint64_t seed_of(int64_t picture) const { return seed + static_cast<uint64_t>(picture); }
};

constexpr int64_t most_pictures = 1'000'000;

/// So many that products are large, so few that activations stay small and a step is soon over; however many
/// there are.
int64_t default_batch(const DiTConfig& model);

/// A loaded model that is to paint so many pictures at once, those for guidance included: products in that
/// type, frozen, placed.
void make_ready(DiT& model, DType products, const Device& device, int64_t pictures);

/// Throws UsageError on what no model can do: steps outside the sampler's range, an absurd count, a scale that
/// is no number.
void check_request(const PaintRequest& request);
/// And on what this model cannot do: unknown classes, guidance without a null class, noise of another shape.
void check_request(const PaintRequest& request, const DiTConfig& model);

/// body(first, end) for the pictures of each batch in turn.
template <class Body>
void for_batches(int64_t count, int64_t batch, Body body) {
  for (int64_t first = 0, end = 0; first < count; first = end) {
    end = first + std::min(batch, count - first);
    body(first, end);
  }
}

/// Finished pictures first, first + 1, …: samples (n, c, h, w) on the options' device.
using PaintedCallback = std::function<void(int64_t first, const Tensor& samples)>;

/// Paints all batches in turn; what the callbacks throw ends it. The same request gives the same values.
void paint(const DiT& model, const PaintRequest& request, const PaintedCallback& on_batch);

}  // namespace linnet
