#include "train/trainer.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/printable.h"
#include "core/tape.h"
#include "io/latents.h"
#include "nn/placement.h"
#include "ops/reduce.h"
#include "pipeline/text_encoding.h"
#include "store/metadata.h"
#include "train/checkpoint.h"

namespace linnet {
namespace {

// Of one of the four kinds of losses (n, 4).
double mean_of(const Tensor& losses, int64_t kind) {
  double sum = 0;
  for (int64_t i = 0; i < losses.size(0); ++i) sum += static_cast<double>(losses.data<float>()[4 * i + kind]);
  return sum / static_cast<double>(losses.size(0));
}

Tensor as_floats(const Tensor& t) {
  Tensor result = Tensor::empty(t.shape());
  std::ranges::transform(t.values<int64_t>(), result.mutable_data<float>(),
                         [](int64_t step) { return static_cast<float>(step); });
  return result;
}

// The values of a tensor on the CPU into the memory of one on any device.
void copy_into(Tensor& to, const Tensor& from) {
  if (to.on_gpu()) return gpu().upload(to.view().data, from.raw(), from.bytes());
  std::copy_n(from.data<float>(), from.numel(), to.mutable_data<float>());
}

// A model with parameters drawn from the seed.
std::unique_ptr<Trainee> fresh_model(const TrainConfig& config, const Device& device) {
  auto model = make_trainee(config);
  nn::initialize(*model, static_cast<uint64_t>(config.train.seed));
  nn::move_to(*model, device);
  return model;
}

// A run's frozen text encoder, null if it has none. A GPU has all of it, as every step wants it, unless latents
// bring their texts' states and it is for previews alone. On the CPU it multiplies in f32 whatever the model
// does, so that runs that go on see the states that they saw before.
std::unique_ptr<T5Encoder> open_frozen_encoder(const TrainConfig& config, const Device& device) {
  if (!config.has_frozen_text_encoder()) return nullptr;
  auto encoder = load_text_encoder(config);
  if (!device.is_gpu() || is_latent_folder(config.data.path)) return encoder;
  encoder->set_product_dtype(training_product_dtype(config.train));
  nn::place(*encoder, device, encoder->product_dtype(), SIZE_MAX, nn::Called::seldom);
  return encoder;
}

// What a teacher and its student must have in common, in words.
std::string conditions_of(const ModelConfig& model) {
  if (const auto* text = std::get_if<PixArtConfig>(&model))
    return fmt::format("texts' states of width {}", text->caption_channels);
  const auto& classes = std::get<DiTConfig>(model);
  return fmt::format("{} classes{}", classes.num_classes, classes.null_class() ? " and none" : "");
}

void check_teacher(const ModelConfig& theirs, const TrainConfig& config) {
  const ModelConfig& ours = config.model;
  const std::string& name = config.distil.teacher;
  const auto input = [](const ModelConfig& c) {
    const Shape shape = picture_shape(c);
    return fmt::format("{0}x{0} in {1} channels", shape[1], shape[0]);
  };
  const auto output = [](const ModelConfig& c) {
    return fmt::format("{}{}", name_of(prediction_of(c)), learns_variance(c) ? " and variance" : "");
  };
  check(input(theirs) == input(ours), "{}: the teacher takes {}, the student {}", name, input(theirs),
        input(ours));
  check(conditions_of(theirs) == conditions_of(ours), "{}: the teacher knows {}, the student {}", name,
        conditions_of(theirs), conditions_of(ours));
  check(output(theirs) == output(ours), "{}: the teacher predicts {}, the student {}", name, output(theirs),
        output(ours));
}

// What a checkpoint holds beyond the state was learned, too, as by a text encoder that the run as it is now
// configured does not train along: to leave it out would lose it with the next save.
void check_holds_no_more(const SafetensorsFile& file,
                         const std::vector<std::pair<std::string, Tensor>>& state) {
  std::set<std::string_view> known;
  for (const auto& [name, tensor] : state) known.insert(name);
  for (const std::string& name : file.names())
    check(known.contains(name),
          "{}: tensor \"{}\" is no part of this run as it is configured now; go on with the text encoder and "
          "the optimiser that it was begun with",
          file.source(), printable(name));
}

}  // namespace

Trainer::Trainer(const TrainConfig& config, const BatchSource& data, Team& team)
    : config_(config), team_(team), device_(device_from_name(config.train.device)),
      class_names_(data.class_names()), pictures_(data.count()), schedule_(NoiseSchedule::linear()),
      frozen_encoder_(open_frozen_encoder(config, device_)), model_(fresh_model(config, device_)),
      ema_(make_trainee(config)),
      optimizer_(nn::learned_parameters(*model_), nn::learned_parameters(*ema_), config.train.optimizer) {
  nn::move_to(*ema_, device_);  // what is computed and not learned
  const DType products = training_product_dtype(config.train);
  model_->set_product_dtype(products);
  model_->set_checkpointing(config.train.checkpointing);
  ema_->set_product_dtype(products);
}

void Trainer::start_from(Trainee& source) {
  if (const auto other = first_difference(source.config(), config_.model))
    fail("the weights to start from belong to another model: their {} is {}, the configured {}", other->setting,
         other->first, other->second);
  source.set_product_dtype(DType::f32);  // weights in 8 bits become floats again
  optimizer_.start_from(nn::learned_parameters(source));
}

void Trainer::start_from(T5Encoder& source) {
  nn::ParameterList parameters;
  source.visit(text_encoder_prefix, [&](const std::string& name, nn::Parameter& p) {
    nn::dequantize(p);  // an encoder's weights stay in 8 bits whatever its products are in
    parameters.emplace_back(name, &p);
  });
  optimizer_.start_from(parameters);
}

void Trainer::learn_from(std::shared_ptr<Trainee> teacher) {
  if (teacher) {
    check_teacher(teacher->config(), config_);
    nn::move_to(*teacher, device_);
    teacher->set_product_dtype(teacher->product_dtype_from_name(config_.distil.precision, device_));
    nn::freeze(*teacher);
  }
  teacher_ = std::move(teacher);
}

PendingMetrics Trainer::begin_step(const Batch& batch) {
  PendingMetrics metrics = gather(batch);
  metrics.lr_ = learning_rate(config_.train, steps_done_);
  metrics.gradient_norm_ = optimizer_.step(config_.train, metrics.lr_, steps_done_);
  ++steps_done_;
  return metrics;
}

PendingMetrics Trainer::gather(const Batch& batch) {
  const int64_t parts = config_.train.accumulate, n = batch.x0.size(0) / parts;
  PendingMetrics metrics;
  metrics.step_ = steps_done_ + 1;
  metrics.processes_ = team_.count();
  team_.together([&] {
    optimizer_.clear_gradients();
    for (int64_t part = 0; part < parts; ++part)
      metrics.parts_.push_back(
          gather_part(part_of(batch, part * n, (part + 1) * n),
                      static_cast<float>(1.0 / static_cast<double>(parts * team_.count()))));
  });
  add_up(metrics);
  return metrics;
}

// Gradients, and with them the losses, so that all processes judge them alike without asking each other.
void Trainer::add_up(PendingMetrics& metrics) {
  std::vector<Tensor> all = optimizer_.gradients();
  for (DiffusionLoss& part : metrics.parts_) all.insert(all.end(), {part.total, part.losses});
  team_.sum(std::move(all));
}

// Also where a card has failed that can no longer be read: none may be left waiting for it.
bool Trainer::is_alike() const {
  if (team_.is_alone()) return true;
  uint64_t hash = 0;
  bool readable = true;
  try {
    hash = optimizer_.hash();
  } catch (const Error&) {
    readable = false;
  }
  return !team_.any(!readable) && team_.all_same(hash);
}

// On the run's device, once for all who look at them. On this thread and not on that which makes batches: work
// that another puts to a GPU could fall into a recording.
TextStates Trainer::states_of(const Batch& batch) const {
  if (frozen_encoder_ && !batch.ids.empty()) return encode_in_parts(*frozen_encoder_, batch.ids);
  return {batch.texts.states.to(device_), batch.texts.offsets};
}

DiffusionLoss Trainer::gather_part(Batch batch, float share) {
  const Tensor x0 = batch.x0.to(device_), noise = batch.noise.to(device_);
  const Tensor xt = add_noise(schedule_, x0, noise, batch.t), times = as_floats(batch.t).to(device_);
  // Before there is a tape: encoder and teacher record nothing, and their layers run on frozen weights.
  batch.texts = states_of(batch);
  const Teaching teaching{teacher_ ? teacher_->predict(xt, times, batch) : Tensor(), config_.distil.noise,
                          config_.distil.variance};
  Tape tape;
  const Tensor prediction = model_->predict(xt, times, batch);
  const DiffusionLoss loss =
      diffusion_loss(schedule_, prediction_of(config_.model), prediction, x0, xt, noise, batch.t, teaching);
  tape.backward(loss.total, Tensor::full({1}, share, device_));
  return loss;
}

StepMetrics PendingMetrics::read() const {
  StepMetrics metrics;
  metrics.step = step_;
  metrics.lr = lr_;
  const double share = 1.0 / static_cast<double>(parts_.size()) / processes_;
  for (const DiffusionLoss& part : parts_) {
    const Tensor losses = part.losses.host();
    metrics.loss += share * static_cast<double>(part.total.item());
    metrics.mse += share * mean_of(losses, 0);
    metrics.bound += share * mean_of(losses, 1);
    metrics.noise_distance += share * mean_of(losses, 2);
    metrics.variance_distance += share * mean_of(losses, 3);
  }
  check(std::isfinite(metrics.loss),
        "the loss is no longer a number at step {}; a lower train.lr or train.clip may help", step_);
  if (gradient_norm_.defined()) metrics.gradient_norm = static_cast<double>(gradient_norm_.item());
  check(std::isfinite(metrics.gradient_norm),
        "the gradient is no longer finite at step {}; a lower train.lr may help", step_);
  return metrics;
}

void Trainer::save_checkpoint(const std::filesystem::path& path) {
  std::vector<TensorToWrite> state;
  for (const auto& each : optimizer_.state()) {
    // Looked through where it is written, so that it leaves a GPU once.
    const auto read = [each, step = steps_done_] {
      Tensor here = each.second.host();
      check(ops::all_finite(here),
            "{} is no longer finite after step {}; a lower train.lr or train.weight_decay may help", each.first,
            step);
      return here;
    };
    state.push_back({each.first, each.second.dtype(), each.second.shape(), read});
  }
  write_checkpoint(path, std::move(state), config_.model,
                   {steps_done_, pictures_, config_.toml, class_metadata()});
}

std::map<std::string, std::string> Trainer::class_metadata() const {
  if (class_names_.empty()) return {};
  return {{classes_key, nlohmann::json(class_names_).dump()}};
}

void Trainer::save_averaged(const std::filesystem::path& folder) {
  std::map<std::string, std::string> metadata = class_metadata();
  metadata[step_key] = std::to_string(steps_done_);
  ema_->save(folder, metadata);
}

void Trainer::load_checkpoint(const std::filesystem::path& path) {
  const Checkpoint checkpoint = open_checkpoint(path);
  if (const auto other = first_difference(checkpoint.model, config_.model))
    fail("{}: this checkpoint is of another model than configured: its {} is {}, not {}", path.string(),
         other->setting, other->first, other->second);
  auto state = optimizer_.state();
  check_holds_no_more(checkpoint.file, state);
  for (auto& [name, tensor] : state) {
    check(checkpoint.file.contains(name), "{}: tensor \"{}\" is missing", path.string(), name);
    const Tensor saved = checkpoint.file.tensor(name);
    check(saved.shape() == tensor.shape() && saved.dtype() == DType::f32,
          "{}: tensor \"{}\" has shape {}, not {}", path.string(), name, to_string(saved.shape()),
          to_string(tensor.shape()));
    copy_into(tensor, saved);
  }
  steps_done_ = checkpoint.step;
}

}  // namespace linnet
