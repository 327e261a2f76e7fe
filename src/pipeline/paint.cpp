#include "pipeline/paint.h"

#include <algorithm>

#include "pipeline/memory_plan.h"

namespace linnet {

int64_t PaintRequest::class_of(int64_t picture, const DiTConfig& model) const {
  if (classes.empty()) return picture % model.num_classes;
  return classes[static_cast<size_t>(picture) % classes.size()];
}

int64_t default_batch(const DiTConfig& model) { return std::clamp<int64_t>(2048 / model.tokens(), 1, 32); }

void make_ready(DiT& model, DType products, const Device& device, int64_t pictures) {
  model.set_product_dtype(products);
  nn::freeze(model);
  place(model, device, pictures);
}

void check_request(const PaintRequest& request) {
  check_options(request.options);
  if (request.count < 1 || request.count > most_pictures)
    throw UsageError(
        fmt::format("1 to {} pictures can be painted at a call, not {}", most_pictures, request.count));
  if (request.batch < 0) throw UsageError(fmt::format("{} pictures at once are impossible", request.batch));
}

void check_request(const PaintRequest& request, const DiTConfig& model) {
  check_request(request);
  for (const int64_t y : request.classes)
    if (y < 0 || y >= model.num_classes)
      throw UsageError(fmt::format("class {} lies outside 0..{}", y, model.num_classes - 1));
  if (request.options.guidance_scale != 1.0f && !model.null_class())
    throw UsageError(
        "this model was trained without dropping classes, so guidance is not possible: use a scale of 1");
  if (!request.noise.defined()) return;
  const Shape wanted{request.count, model.in_channels, model.input_size, model.input_size};
  check(request.noise.shape() == wanted, "the noise has shape {}, these pictures need {}",
        to_string(request.noise.shape()), to_string(wanted));
}

void paint(const DiT& model, const PaintRequest& request, const PaintedCallback& on_batch) {
  check_request(request, model.config());
  const int64_t batch = request.batch > 0 ? request.batch : default_batch(model.config());
  for_batches(request.count, batch, [&](int64_t first, int64_t end) {
    if (request.wanted && !request.wanted(first, end)) return;
    std::vector<int64_t> classes;
    std::vector<uint64_t> seeds;
    for (int64_t i = first; i < end; ++i) {
      classes.push_back(request.class_of(i, model.config()));
      seeds.push_back(request.seed_of(i));
    }
    const Tensor noise = request.noise.defined() ? request.noise.rows(first, end) : Tensor();
    on_batch(first, generate(model, classes, seeds, request.options, noise));
  });
}

}  // namespace linnet
