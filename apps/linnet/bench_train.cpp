// linnet bench train: one training step (forward, backward, AdamW and moving average) on synthetic data, its
// share of oneDNN's speed, its memory, where its time goes, and what a teacher adds to it.
#include <fmt/format.h>

#include "bench.h"
#include "bench_breakdown.h"
#include "bench_ceilings.h"
#include "bench_device.h"
#include "bench_random.h"
#include "ops/matmul.h"
#include "train/trainer.h"

namespace linnet::app {
namespace {

struct Options : BenchOptions {
  std::string model = "LiT-S/2", mixer, teacher;
  int64_t size = 256, batch = 16;
  bool checkpointing = false, no_breakdown = false;
};

// The same batch at every step: what is in it costs nothing.
class SyntheticData : public BatchSource {
 public:
  SyntheticData(const DiTConfig& config, int64_t batch) {
    const Shape shape{batch, config.in_channels, config.input_size, config.input_size};
    batch_ = {random_tensor(shape, 1.0f), Generator(0).normal(shape), Tensor::empty({batch}, DType::i64),
              Tensor::empty({batch}, DType::i64)};
    for (int64_t i = 0; i < batch; ++i) {
      batch_.t.mutable_data<int64_t>()[i] = (i * 617 + 31) % 1000;
      batch_.y.mutable_data<int64_t>()[i] = i % config.num_classes;
    }
  }
  Batch batch(int64_t) const override { return batch_; }

 private:
  Batch batch_;
};

// "auto" may mean f16, an older GPU's fastest: what is measured and reported is what training makes of it.
std::string training_dtype(const Options& o) {
  OptimizerConfig config;
  config.precision = o.dtype;
  config.device = o.device;
  return ops::name_of_products(training_product_dtype(config), device_from_name(o.device));
}

TrainConfig train_config(const Options& o, const DiTConfig& model) {
  TrainConfig config;
  config.model = model;
  config.train.batch = o.batch;
  config.train.precision = config.distil.precision = name_of(o.product_dtype());
  config.train.checkpointing = o.checkpointing;
  config.train.device = o.device;
  return config;
}

Table facts(const Options& o, const DiTConfig& config, Trainer& trainer, double flops) {
  Table table("model", "Model",
              {{"model", "model"},
               {"mixer", "mixer"},
               {"batch", "batch"},
               {"size", "pixels"},
               {"tokens", "tokens"},
               {"parameters_m", "M parameters", 2},
               {"gemm_gflop", "GEMM GFLOP a step", 1}});
  table.add({o.model, std::string(name_of(config.mixer)), static_cast<double>(o.batch),
             static_cast<double>(o.size), static_cast<double>(config.tokens()),
             static_cast<double>(nn::count_parameters(trainer.model())) * 1e-6, flops * 1e-9});
  return table;
}

struct Memory {
  size_t state = 0, activations = 0;
};

Table speed(const Options& o, const Whole& whole, double flops, const Memory& memory,
            const std::string& ceiling) {
  Table table("step", "Training step (GEMM FLOPs: three times the forward pass's)",
              {{"best_ms", "best ms", 1},
               {"median_ms", "median ms", 1},
               {"rounds", "rounds"},
               {"pictures_s", "pictures/s", 1},
               {"gflops", "GEMM GFLOP/s", 1},
               {"ceiling_gflops", "ceiling GFLOP/s", 1},
               {"ratio", "% of ceiling", 1},
               {"ratio_median", "by medians", 1},
               {"state_mb", "state MB", 0},
               {"activation_mb", "step MB", 0},
               {"ceiling", "ceiling"}});
  const Ratio ratio = reached(whole.samples, flops, whole.matmul, whole.matmul_flops);
  const double best = whole.samples.best();
  table.add({best * 1e3, whole.samples.median() * 1e3, static_cast<double>(whole.samples.seconds.size()),
             static_cast<double>(o.batch) / best, flops / best * 1e-9,
             whole.matmul_flops / whole.matmul.best() * 1e-9, 100 * ratio.best, 100 * ratio.median,
             static_cast<double>(memory.state) * 1e-6, static_cast<double>(memory.activations) * 1e-6,
             ceiling});
  return table;
}

std::shared_ptr<DiT> make_teacher(const Options& o) {
  if (o.teacher.empty()) return nullptr;
  auto teacher = std::make_shared<DiT>(config_for(o.teacher, o.size, ""));
  fill_module(*teacher);
  return teacher;
}

// A step with the teacher, and the teacher's pass alone.
std::vector<Work> teacher_works(Trainer& trainer, const std::shared_ptr<DiT>& teacher, const Batch& batch) {
  if (!teacher) return {};
  const Tensor times = Tensor::full({batch.x0.size(0)}, 500.0f);
  const auto taught_by = std::make_shared<ClassTrainee>(teacher);
  trainer.learn_from(taught_by);  // which freezes it, and says if it does not fit
  trainer.learn_from(nullptr);
  return {{.run = [&] { trainer.step(batch); },
           .prepare = [&trainer, taught_by] { trainer.learn_from(taught_by); },
           .finish = [&trainer] { trainer.learn_from(nullptr); }},
          {.run = [teacher, times, &batch] { teacher->forward(batch.x0, times, batch.y); }}};
}

Table distillation(const Options& o, DiT& teacher, const Whole& whole, const Samples& distilled,
                   const Samples& alone) {
  Table table("distillation", "The same step with a teacher",
              {{"teacher", "teacher"},
               {"teacher_parameters_m", "M parameters", 2},
               {"dtype", "its products"},
               {"plain_ms", "step ms", 1},
               {"distilled_ms", "with teacher ms", 1},
               {"teacher_ms", "teacher ms", 1},
               {"slowdown", "slower by", 2},
               {"teacher_share", "teacher's %", 1},
               {"teacher_share_median", "by medians", 1},
               {"teacher_ratio", "its % of ceiling", 1}});
  const double plain = whole.samples.best(), taught = distilled.best();
  const double flops = gemm_flops(teacher.config()) * static_cast<double>(o.batch);
  const Ratio ratio = reached(alone, flops, whole.matmul, whole.matmul_flops);
  table.add({o.teacher, static_cast<double>(nn::count_parameters(teacher)) * 1e-6,
             std::string(name_of(teacher.product_dtype())), plain * 1e3, taught * 1e3, alone.best() * 1e3,
             taught / plain, 100 * alone.best() / taught, 100 * alone.median() / distilled.median(),
             100 * ratio.best});
  return table;
}

// A part to be timed: one direction of an operation, or the optimiser.
struct Timed {
  Part part;
  Work work;
};

std::vector<Timed> timed_parts(const DiTConfig& config, const Options& o, int64_t parameters) {
  std::vector<Timed> list;
  for (const Operation& op : block_operations(config, o.batch, o.product_dtype())) {
    const double flops = op.in_products ? op.flops : 0;
    const double forward_calls = o.checkpointing ? 2 * op.calls : op.calls;
    list.push_back(
        {{op.name + ", forward", op.shape, forward_calls, flops, op.bytes, {}}, recorded_work(op, 0.03)});
    // The attention's own count of backward FLOPs may be larger; the whole is held to three times the
    // forward's.
    list.push_back({{op.name + ", backward", op.shape, op.calls, 2 * flops, op.backward_bytes, {}},
                    backward_work(op, 0.03)});
  }
  const Operation adam = optimizer_operation(parameters);
  list.push_back({{adam.name, adam.shape, adam.calls, 0, adam.bytes, {}}, inference_work(adam, 0.03)});
  return list;
}

void run(Options o) {
  const DiTConfig config = config_for(o.model, o.size, o.mixer);
  const auto teacher = make_teacher(o);  // first, so that a wrong name is refused before anything is measured
  o.dtype = training_dtype(o);
  Report report = begin_report("train", o,
                               {{"model", o.model},
                                {"mixer", name_of(config.mixer)},
                                {"size", o.size},
                                {"batch", o.batch},
                                {"checkpointing", o.checkpointing},
                                {"teacher", o.teacher}});
  Memory memory;
  const SyntheticData data(config, o.batch);
  const size_t before = bench_memory().in_use;
  Trainer trainer(train_config(o, config), data);
  memory.state = bench_memory().in_use - before;
  const double flops = 3 * gemm_flops(config) * static_cast<double>(o.batch);
  report.facts(facts(o, config, trainer, flops));

  const Batch batch = data.batch(0);
  const MatmulCeiling matmul(o.batch * config.tokens(), config.hidden_size, config.mlp_size(),
                             o.product_dtype());
  const CopyCeiling copy;
  std::vector<Work> works{matmul.work(0.2), {.run = [&] { trainer.step(batch); }}, copy.work(0.05)};
  auto parts =
      o.no_breakdown ? std::vector<Timed>{} : timed_parts(config, o, nn::count_parameters(trainer.model()));
  for (const Timed& timed : parts) works.push_back(timed.work);
  for (Work& work : teacher_works(trainer, teacher, batch)) works.push_back(std::move(work));
  const auto samples = interleave(o.budget, works);
  const size_t at_rest = bench_memory().in_use;
  reset_bench_peak();
  trainer.step(batch);
  memory.activations = bench_memory().peak - at_rest;

  const Whole whole{samples[1], samples[0], samples[2], matmul.flops(), copy.bytes()};
  report.measured(speed(o, whole, flops, memory, matmul.name()));
  if (teacher)
    report.measured(distillation(o, *teacher, whole, samples[samples.size() - 2], samples[samples.size() - 1]));
  if (o.no_breakdown) return report.save(o.json);
  std::vector<Part> timed;
  for (size_t i = 0; i < parts.size(); ++i) {
    timed.push_back(parts[i].part);
    timed.back().samples = samples[i + 3];
  }
  report.facts(part_facts(timed));
  report.measured(breakdown(timed, whole));
  report.note(largest_gaps(timed, whole));
  report.save(o.json);
}

}  // namespace

void add_bench_train(const Verb& bench) {
  const Verb app =
      bench.add_subcommand("train", "One training step: time, share of oneDNN's peak, memory, breakdown");
  auto options = std::make_shared<Options>();
  app.add_option("--model", options->model, "LiT-S/2, DiT-S/2, ...").capture_default_str();
  add_mixer_option(app, options->mixer);
  app.add_option("--teacher", options->teacher,
                 "Measure also a step that learns from this model: DiT-XL/2, ...")
      .type_name("NAME");
  app.add_option("--size", options->size, "Side of the picture in pixels").capture_default_str();
  app.add_option("--batch", options->batch, "Pictures a step").in_range(1, 65536).capture_default_str();
  app.add_flag("--checkpointing", options->checkpointing, "Compute activations again instead of keeping them");
  app.add_flag("--no-breakdown", options->no_breakdown, "Time only the whole");
  add_bench_options(app, *options, {"auto", "f32", "tf32", "bf16"});
  app.callback([options] { run(*options); });
}

}  // namespace linnet::app
