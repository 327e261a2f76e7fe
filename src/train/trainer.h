// Training: the step (loss, gradients, optimiser, moving average), and its state on disk. A run's folder holds
//   checkpoint.safetensors  everything needed to go on bit-exactly: weights, moving average, moments, step
//   model.safetensors       the moving average alone, as `linnet generate` takes it
//   text_encoder/, tokenizer/   of a text encoder that is trained along
//   config.toml, metrics.jsonl, samples/
//   run.lock                while a run is working there
#pragma once

#include <functional>
#include <map>

#include "core/team.h"
#include "diffusion/loss.h"
#include "train/data.h"
#include "train/optimizer.h"
#include "train/trainee.h"

namespace linnet {

struct StepMetrics {
  int64_t step = 0;  ///< counted from 1: how many steps have been done
  double loss = 0, mse = 0, bound = 0, gradient_norm = 0, lr = 0;
  double noise_distance = 0, variance_distance = 0;  ///< from the teacher, unweighted
};

/// The metrics of a step as they lie where the model lies, which may not have got there yet.
class PendingMetrics {
 public:
  int64_t step() const { return step_; }
  /// Waits for the step. Throws Error if the loss is no number.
  StepMetrics read() const;

 private:
  friend class Trainer;

  int64_t step_ = 0;
  double lr_ = 0;
  int processes_ = 1;                 // over which the losses were added
  std::vector<DiffusionLoss> parts_;  // of equal shares of the batch
  Tensor gradient_norm_;              // undefined: the step was not finished
};

class Trainer {
 public:
  /// A fresh run on train.device, initialised from the seed, or from weights that are copied. The processes of
  /// a team, which must outlive it, make each step together: all with the same configuration, each on its share
  /// of the batch.
  Trainer(const TrainConfig& config, const BatchSource& data, Team& team = Team::alone());

  /// One optimiser step on the next batch. Steps are collective (core/team.h).
  StepMetrics step(const Batch& batch) { return begin_step(batch).read(); }
  /// The same without waiting for it, if it is on a GPU.
  PendingMetrics begin_step(const Batch& batch);
  /// A step's first half: the losses of a batch, and their gradient in the parameters instead of what was
  /// there.
  StepMetrics gather_gradients(const Batch& batch) { return gather(batch).read(); }
  int64_t steps_done() const { return steps_done_; }
  /// Collective: whether weights, average and what the optimiser keeps are the same in all processes, bit for
  /// bit.
  bool is_alike() const;
  const Device& device() const { return device_; }

  Trainee& model() { return *model_; }
  /// The model with averaged weights (shared memory, always current).
  Trainee& averaged() { return *ema_; }

  /// What makes states of the batches' texts, if that is not trained along; else, and of classes, null.
  const T5Encoder* frozen_encoder() const { return frozen_encoder_.get(); }

  /// Replaces all weights (and the average) by those of a model of the same configuration; a text encoder that
  /// is trained along keeps its own.
  void start_from(Trainee& source);
  /// Replaces those of the text encoder that is trained along.
  void start_from(T5Encoder& source);
  /// From here on also learns what the teacher predicts of the very same x_t, timesteps and (dropped or kept)
  /// classes, weighted as config.distil says; from null, from nobody. The teacher may be wider or deeper, but
  /// must take the same input, know the same classes, and predict the same; throws Error otherwise. It is
  /// moved to the run's device and frozen: its layers keep their weights converted and packed, once.
  void learn_from(std::shared_ptr<Trainee> teacher);

  /// Writes atomically. Throws Error, and leaves what is there, if weights, averages or what the optimiser
  /// keeps of the steps are not finite.
  void save_checkpoint(const std::filesystem::path& path);
  /// Into the run's folder, as Trainee::save.
  void save_averaged(const std::filesystem::path& folder);
  /// Throws Error when the file belongs to another configuration.
  void load_checkpoint(const std::filesystem::path& path);

 private:
  PendingMetrics gather(const Batch& batch);
  DiffusionLoss gather_part(Batch batch, float share);
  void add_up(PendingMetrics& metrics);
  TextStates states_of(const Batch& batch) const;
  std::map<std::string, std::string> class_metadata() const;  // as metadata; empty: unknown

  TrainConfig config_;
  Team& team_;
  Device device_;
  std::vector<std::string> class_names_;
  int64_t pictures_;  // of the data
  NoiseSchedule schedule_;
  std::unique_ptr<T5Encoder> frozen_encoder_;
  std::unique_ptr<Trainee> model_, ema_;
  std::shared_ptr<Trainee> teacher_;
  Optimizer optimizer_;
  int64_t steps_done_ = 0;
};

struct RunCallbacks {
  /// What is to be known before the first step: of the data, or that they are others than before.
  std::function<void(const std::string&)> on_remark;
  /// After every step; on a GPU only after those that are logged, since it waits for them.
  std::function<void(const StepMetrics&, double steps_per_second, double seconds_left)> on_step;
  std::function<void(Trainer&)> on_sample;  ///< at output.sample_every and at the end
  std::function<void(const std::filesystem::path&)> on_save;
  /// An error ends the run, and this step, its last, has been saved.
  std::function<void(int64_t step)> on_rescue;
  std::function<bool()> stop_requested;  ///< asked after every step; true: save and return
};

/// Runs to config.train.steps, or until stopped. With resume, goes on from the run's checkpoint, but not
/// without the teacher it had (UsageError); without, refuses a folder that holds one, or what no run wrote
/// (UsageError). Both refuse a folder in which another run is working (UsageError). What data or a callback
/// throw passes through, after the steps done by then have been saved; a model that is not finite never is.
/// Of a team, which works on train.device already, the first process writes and is called back, but for
/// stop_requested, which all are asked; whichever fails, all end together (Team::together). Returns the number
/// of steps done in all.
int64_t run_training(const TrainConfig& config, bool resume, const RunCallbacks& callbacks,
                     Team& team = Team::alone());

}  // namespace linnet
