#include "train/train_classifier.h"

#include <cmath>

#include "core/parallel.h"
#include "core/tape.h"
#include "io/picture_set.h"
#include "ops/cross_entropy.h"
#include "train/data.h"
#include "train/optimizer.h"

namespace linnet {
namespace {

// A diffusion model's batches serve a classifier too, if no class is ever dropped.
std::unique_ptr<BatchSource> open_pictures(const ClassifierTraining& training) {
  TrainConfig config;
  config.data.path = training.data;
  config.train = training.optimizer;
  DiTConfig model;
  model.input_size = training.model.input_size;
  model.in_channels = training.model.in_channels;
  model.num_classes = training.model.num_classes;
  model.class_dropout = 0;
  config.model = model;
  return open_data(config);
}

}  // namespace

ClassifierTraining::ClassifierTraining() {
  optimizer.steps = 3000;
  optimizer.batch = 64;
  optimizer.lr = 1e-3;
  optimizer.weight_decay = 0.01;
  optimizer.schedule = "cosine";
  optimizer.warmup = 100;
  optimizer.clip = 1;
  optimizer.ema = 0.99;
}

TrainedClassifier train_classifier(ClassifierTraining training,
                                   const std::function<void(const ClassifierMetrics&)>& on_step) {
  training.model.num_classes = static_cast<int64_t>(pictures_by_class(training.data).size());
  const auto data = open_pictures(training);
  Classifier model(training.model);
  TrainedClassifier result{std::make_unique<Classifier>(training.model), data->class_names()};
  const OptimizerConfig& settings = training.optimizer;
  const Device device = device_from_name(settings.device);
  nn::initialize(model, static_cast<uint64_t>(settings.seed));
  nn::move_to(model, device);
  Optimizer optimizer(nn::learned_parameters(model), nn::learned_parameters(*result.model));

  Prefetcher batches(*data, 0, device.is_gpu() ? threads() : 1);
  for (int64_t step = 0; step < settings.steps; ++step) {
    const Batch batch = batches.next();
    Tape tape;
    const Tensor loss = ops::cross_entropy(model.logits(model.features(batch.x0.to(device))), batch.y);
    tape.backward(loss);
    optimizer.step(settings, learning_rate(settings, step), step);
    const bool is_read = !device.is_gpu() || (step + 1) % 10 == 0 || step + 1 == settings.steps;
    if (!is_read) continue;
    const auto value = static_cast<double>(loss.item());
    check(std::isfinite(value), "the loss is no longer a number at step {}; a lower rate may help", step + 1);
    if (on_step) on_step({step + 1, value});
  }
  return result;
}

}  // namespace linnet
