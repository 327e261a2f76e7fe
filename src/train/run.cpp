// The training loop around Trainer: metrics, checkpoints, stopping and going on.
#include <nlohmann/json.hpp>

#include <chrono>
#include <fstream>
#include <optional>

#include "core/parallel.h"
#include "core/printable.h"
#include "core/random.h"
#include "store/dit_file.h"
#include "store/metadata.h"
#include "store/t5_file.h"
#include "train/checkpoint.h"
#include "train/open_model.h"
#include "train/run_folder.h"
#include "train/trainer.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Metrics {
 public:
  Metrics(const fs::path& path, bool taught) : path_(path), taught_(taught), file_(path, std::ios::app) {
    check(file_.good(), "{}: cannot be written", path.string());
  }
  void add(const StepMetrics& m, double seconds) {
    nlohmann::ordered_json json{{"step", m.step},
                                {"loss", m.loss},
                                {"mse", m.mse},
                                {"bound", m.bound},
                                {"gradient_norm", m.gradient_norm},
                                {"lr", m.lr},
                                {"seconds", seconds}};
    if (taught_) {
      json["noise_distance"] = m.noise_distance;
      json["variance_distance"] = m.variance_distance;
    }
    file_ << json.dump() << '\n';
    file_.flush();
    check(file_.good(), "{}: cannot be written (disk full?)", path_.string());
  }

 private:
  fs::path path_;
  bool taught_;
  std::ofstream file_;
};

// The steps of a run, what is told of them, and what is saved.
class Run {
 public:
  Run(const TrainConfig& config, Trainer& trainer, const RunCallbacks& callbacks, Team& team)
      : config_(config), dir_(config.output.dir), trainer_(trainer), callbacks_(callbacks), team_(team),
        first_(trainer.steps_done()) {
    if (team.leads()) metrics_.emplace(dir_ / "metrics.jsonl", !config.distil.teacher.empty());
  }

  // To the last step, or until stopped. On an error what was done is saved before the error is passed on.
  void work(Prefetcher& batches) {
    try {
      check_alike();
      while (trainer_.steps_done() < config_.train.steps && !is_stopped_)
        step(team_.together([&] { return batches.next(); }));
      if (saved_ != trainer_.steps_done()) save();
    } catch (...) {
      if (is_worth_saving() && team_.leads()) rescue();
      if (team_.has_failed()) team_.meet();  // none ends the others while the first still saves
      throw;
    }
  }

 private:
  void step(const Batch& batch) {
    whole_ = false;
    pending_ = trainer_.begin_step(batch);
    whole_ = true;
    if (is_due(config_.output.log_every) || !trainer_.device().is_gpu()) log();
    if (is_due(config_.output.save_every)) save();
    if (is_due(config_.output.sample_every)) sample();
    is_stopped_ = team_.any(callbacks_.stop_requested && callbacks_.stop_requested());
  }

  bool is_due(int64_t every) const {
    const int64_t step = trainer_.steps_done();
    return every > 0 && (step % every == 0 || step == config_.train.steps);
  }

  void log() {
    const StepMetrics m = team_.together([&] { return pending_.read(); });
    const double elapsed = seconds_since(start_), rate = static_cast<double>(m.step - first_) / elapsed;
    team_.together([&] {
      if (!team_.leads()) return;
      if (is_due(config_.output.log_every)) metrics_->add(m, elapsed);
      if (callbacks_.on_step)
        callbacks_.on_step(m, rate, static_cast<double>(config_.train.steps - m.step) / rate);
    });
  }

  void sample() {
    team_.together([&] {
      if (team_.leads() && callbacks_.on_sample) callbacks_.on_sample(trainer_);
    });
  }

  void check_alike() {
    const bool alike = trainer_.is_alike();
    team_.together([&] {
      check(alike,
            "after step {} the processes' weights are no longer the same; do all run the same program on "
            "machines of one kind?",
            trainer_.steps_done());
    });
  }

  // Of a team that ends together, all ask.
  bool is_worth_saving() const {
    if (!whole_ || trainer_.steps_done() == first_) return false;
    return !team_.has_failed() || trainer_.is_alike();
  }

  void save() {
    check_alike();
    team_.together([&] {
      if (team_.leads()) write();
    });
    saved_ = trainer_.steps_done();
  }

  void write() {
    pending_.read();  // throws rather than have a spoilt model replace a good one
    trainer_.save_checkpoint(dir_ / checkpoint_name);
    trainer_.save_averaged(dir_);
    saved_ = trainer_.steps_done();
    if (callbacks_.on_save) callbacks_.on_save(dir_ / checkpoint_name);
  }

  // Saves the steps since the last save, if the model is sound.
  void rescue() {
    try {
      if (saved_ != trainer_.steps_done()) write();
      if (callbacks_.on_rescue) callbacks_.on_rescue(saved_);
    } catch (...) {  // it would hide the error that led here
    }
  }

  const TrainConfig& config_;
  const fs::path dir_;
  Trainer& trainer_;
  const RunCallbacks& callbacks_;
  Team& team_;
  std::optional<Metrics> metrics_;  // of the first process
  PendingMetrics pending_;
  const int64_t first_;
  int64_t saved_ = -1;  // also what was done before is saved again: a kill may have come between its files
  bool whole_ = true;   // no step was broken off within
  bool is_stopped_ = false;
  const Clock::time_point start_ = Clock::now();
};

// Class 3 of the data is to be class 3 of the weights. The same names in another order are another mistake than
// other names, which may well be of the same classes.
void check_order(const std::string& file, const ModelConfig& model, const std::vector<std::string>& ours) {
  if (is_of_texts(model) || ours.empty()) return;
  const Weights weights = find_dit_weights(open_file_or_builtin(file));
  const std::vector<std::string> theirs = read_class_names(weights, std::get<DiTConfig>(model).num_classes);
  const auto [here, there] = std::ranges::mismatch(ours, theirs);
  if (here == ours.end() || there == theirs.end() || !std::ranges::is_permutation(ours, theirs)) return;
  fail(
      "{}: its classes are those of the data in another order: class {} is \"{}\" there and \"{}\" in the data",
      weights.source(), here - ours.begin(), printable(*there), printable(*here));
}

// Weights, and a teacher.
void prepare(Trainer& trainer, const TrainConfig& config, bool resume,
             const std::vector<std::string>& classes) {
  if (!config.distil.teacher.empty()) {
    trainer.learn_from(load_trainee(config.distil.teacher, config.model));
    check_order(config.distil.teacher, config.model, classes);
  }
  if (resume) {
    const std::string checkpoint = (fs::path(config.output.dir) / checkpoint_name).string();
    trainer.load_checkpoint(checkpoint);
    check_order(checkpoint, config.model, classes);
    return;
  }
  if (!config.train.init.empty()) {
    trainer.start_from(*load_trainee(config.train.init, config.model));
    check_order(config.train.init, config.model, classes);
  }
  if (config.text.tune) trainer.start_from(*load_t5(config.text.encoder));
}

// Pictures that were added or are gone change the order of all.
void tell_remarks(const TrainConfig& config, bool resume, const BatchSource& data,
                  const RunCallbacks& callbacks) {
  if (!callbacks.on_remark) return;
  const int64_t now = data.count(),
                before = resume ? open_checkpoint(fs::path(config.output.dir) / checkpoint_name).pictures : 0;
  if (before > 0 && now > 0 && before != now)
    callbacks.on_remark(
        fmt::format("otherwise than before: there were {}, now there are {}", counted(before, "picture"), now));
  if (const std::string remark = data.remark(); !remark.empty()) callbacks.on_remark(remark);
}

// As far as it shows at no cost.
void check_same_data(const BatchSource& data, Team& team) {
  auto hash = static_cast<uint64_t>(data.count());
  for (const std::string& name : data.class_names()) hash = mix(hash, nn::hash_name(name));
  const bool alike = team.all_same(hash);
  team.together([&] {
    check(alike,
          "the processes see other pictures or classes each: they must see the same files by the same names");
  });
}

}  // namespace

int64_t run_training(const TrainConfig& config, bool resume, const RunCallbacks& callbacks, Team& team) {
  std::optional<RunFolder> folder;  // of the first process
  team.together([&] {
    if (team.leads()) folder.emplace(config, resume);
  });
  if (config.train.threads > 0) set_threads(static_cast<int>(config.train.threads));

  std::unique_ptr<BatchSource> data;
  std::unique_ptr<Trainer> trainer;
  std::unique_ptr<Run> run;
  team.together([&] {
    data = open_data(config, {team.index(), team.count()});
    trainer = std::make_unique<Trainer>(config, *data, team);
    prepare(*trainer, config, resume, data->class_names());
    if (team.leads()) tell_remarks(config, resume, *data, callbacks);
    if (folder) folder->begin(trainer->steps_done());
    run = std::make_unique<Run>(config, *trainer, callbacks, team);
  });
  check_same_data(*data, team);
  Prefetcher batches(*data, trainer->steps_done(), trainer->device().is_gpu() ? threads() : 1);
  run->work(batches);
  return trainer->steps_done();
}

}  // namespace linnet
