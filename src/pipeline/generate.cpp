#include "pipeline/generate.h"

namespace linnet {

Tensor generate(const DiT& model, const std::vector<int64_t>& classes, const std::vector<uint64_t>& seeds,
                const GenerateOptions& options, const Tensor& start_noise) {
  const DiTConfig& config = model.config();
  check(classes.size() == seeds.size() && !classes.empty(), "as many seeds as classes are needed");
  for (const int64_t y : classes)
    if (y < 0 || y > config.num_classes || (y == config.num_classes && !config.null_class()))
      throw UsageError(fmt::format("class {} lies outside 0..{}", y, config.num_classes - 1));
  if (options.guidance_scale != 1.0f && !config.null_class())
    throw UsageError(
        "this model was trained without dropping classes, so guidance is not possible: use a scale of 1");
  const auto predict = [&](const Tensor& xt, const Tensor& t, const Tensor& y) {
    return model.forward(xt, t, y);
  };
  return sample(conditioned(predict, Tensor::from(classes), config.num_classes), config.prediction,
                {config.in_channels, config.input_size, config.input_size}, seeds, options, start_noise);
}

}  // namespace linnet
