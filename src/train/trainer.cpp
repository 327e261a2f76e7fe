#include "train/trainer.h"

#include <nlohmann/json.hpp>

#include <cmath>

#include "core/tape.h"
#include "diffusion/loss.h"
#include "io/safetensors.h"
#include "ops/matmul.h"
#include "store/model_file.h"

namespace linnet {
namespace {

DType product_dtype(const std::string& precision) {
  if (precision == "auto") return ops::fastest_product_dtype();
  return precision == "bf16" ? DType::bf16 : DType::f32;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

// A model with parameters drawn from the seed.
DiT fresh_model(const TrainConfig& config) {
  DiT model(config.model);
  nn::initialize(model, static_cast<uint64_t>(config.train.seed));
  return model;
}

}  // namespace

Trainer::Trainer(const TrainConfig& config, const BatchSource& data)
    : config_(config), class_names_(data.class_names()), schedule_(NoiseSchedule::linear()), model_(fresh_model(config)),
      ema_(config.model), optimizer_(nn::learned_parameters(model_), nn::learned_parameters(ema_)) {
  model_.set_product_dtype(product_dtype(config.train.precision));
  model_.set_checkpointing(config.train.checkpointing);
  ema_.set_product_dtype(model_.product_dtype());
}

void Trainer::start_from(DiT& source) {
  check(source.config() == config_.model, "the weights to start from belong to another model: {} instead of {}",
        to_json(source.config()), to_json(config_.model));
  optimizer_.start_from(nn::learned_parameters(source));
}

void Trainer::learn_from(std::unique_ptr<DiT> teacher) {
  const DiTConfig &theirs = teacher->config(), &ours = config_.model;
  const bool same_input = theirs.input_size == ours.input_size && theirs.in_channels == ours.in_channels;
  check(same_input, "the teacher takes {1}x{1} in {0} channels, the student {3}x{3} in {2}", theirs.in_channels,
        theirs.input_size, ours.in_channels, ours.input_size);
  check(theirs.num_classes == ours.num_classes && theirs.null_class() == ours.null_class(),
        "the teacher knows {} classes{}, the student {}{}", theirs.num_classes, theirs.null_class() ? " and none" : "",
        ours.num_classes, ours.null_class() ? " and none" : "");
  check(theirs.prediction == ours.prediction && theirs.learn_sigma == ours.learn_sigma,
        "the teacher predicts {}{}, the student {}{}", name_of(theirs.prediction), theirs.learn_sigma ? " and variance" : "",
        name_of(ours.prediction), ours.learn_sigma ? " and variance" : "");
  teacher_ = std::move(teacher);
  teacher_->set_product_dtype(model_.product_dtype());
  nn::freeze(*teacher_);
}

StepMetrics Trainer::step(const Batch& batch) {
  const int64_t parts = config_.train.accumulate, n = batch.x0.size(0) / parts;
  optimizer_.clear_gradients();
  StepMetrics metrics;
  for (int64_t part = 0; part < parts; ++part) {
    const auto of = [&](const Tensor& all) { return all.rows(part * n, (part + 1) * n); };
    const Tensor x0 = of(batch.x0), noise = of(batch.noise), t = of(batch.t);
    const Tensor xt = add_noise(schedule_, x0, noise, t);
    Tensor times = Tensor::empty({n});
    for (int64_t i = 0; i < n; ++i) times.mutable_data<float>()[i] = static_cast<float>(t.data<int64_t>()[i]);
    const Tensor y = of(batch.y);
    const Teaching teaching{teacher_ ? teacher_->forward(xt, times, y) : Tensor(), config_.distil.noise,
                            config_.distil.variance};
    Tape tape;
    const Tensor prediction = model_.forward(xt, times, y);
    const DiffusionLoss loss =
        diffusion_loss(schedule_, config_.model.prediction, prediction, x0, xt, noise, t, teaching);
    const double share = 1.0 / static_cast<double>(parts);
    metrics.loss += share * static_cast<double>(loss.total.item());
    metrics.mse += share * mean_of(loss.mse);
    metrics.bound += share * mean_of(loss.bound);
    metrics.noise_distance += share * mean_of(loss.noise_distance);
    metrics.variance_distance += share * mean_of(loss.variance_distance);
    tape.backward(loss.total, Tensor::full({1}, static_cast<float>(share)));
  }
  check(std::isfinite(metrics.loss), "the loss is no longer a number at step {}; a lower train.lr or train.clip may help",
        steps_done_ + 1);
  metrics.lr = learning_rate(config_.train, steps_done_);
  metrics.gradient_norm = optimizer_.step(config_.train, metrics.lr, steps_done_);
  metrics.step = ++steps_done_;
  return metrics;
}

void Trainer::save_checkpoint(const std::filesystem::path& path) {
  write_safetensors(path, optimizer_.state(), {{"linnet.step", std::to_string(steps_done_)},
                                    {"linnet.train", config_.toml},
                                    {"linnet.checkpoint", to_json(config_.model)}});
}

void Trainer::save_averaged(const std::filesystem::path& path) {
  std::map<std::string, std::string> metadata{{"linnet.step", std::to_string(steps_done_)}};
  if (!class_names_.empty()) metadata["linnet.classes"] = nlohmann::json(class_names_).dump();
  save_model(path, ema_, DType::f32, metadata);
}

void Trainer::load_checkpoint(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::open(path);
  const auto& metadata = file.metadata();
  check(metadata.contains("linnet.step") && metadata.contains("linnet.checkpoint"), "{}: this is no training checkpoint",
        path.string());
  check(metadata.at("linnet.checkpoint") == to_json(config_.model), "{}: this checkpoint is of another model ({}) than configured ({})",
        path.string(), metadata.at("linnet.checkpoint"), to_json(config_.model));
  for (auto& [name, tensor] : optimizer_.state()) {
    check(file.contains(name), "{}: tensor \"{}\" is missing", path.string(), name);
    const Tensor saved = file.tensor(name);
    check(saved.shape() == tensor.shape() && saved.dtype() == DType::f32, "{}: tensor \"{}\" has shape {}, not {}",
          path.string(), name, to_string(saved.shape()), to_string(tensor.shape()));
    std::copy_n(saved.data<float>(), saved.numel(), tensor.mutable_data<float>());
  }
  try {
    steps_done_ = std::stoll(metadata.at("linnet.step"));
  } catch (const std::exception&) {
    fail("{}: the step \"{}\" is no number", path.string(), metadata.at("linnet.step"));
  }
}

}  // namespace linnet
