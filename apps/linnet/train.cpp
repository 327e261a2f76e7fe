// linnet train: trains a model as a TOML file says.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "interrupt.h"
#include "io/sheet.h"
#include "model_argument.h"
#include "pipeline/generate.h"
#include "terminal.h"
#include "train/trainer.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  std::string init, teacher;
  bool resume = false;
};

// One picture of each of up to 64 classes, evenly chosen.
void write_samples(Trainer& trainer, const TrainConfig& config) {
  const DiTConfig& model = config.model;
  if (model.in_channels != 3) return;
  const int64_t count = std::min<int64_t>(64, model.num_classes);
  std::vector<int64_t> classes;
  std::vector<uint64_t> seeds;
  for (int64_t i = 0; i < count; ++i) {
    classes.push_back(i * model.num_classes / count);
    seeds.push_back(static_cast<uint64_t>(i));
  }
  GenerateOptions options;
  options.steps = static_cast<int>(config.output.sample_steps);
  options.guidance_scale = model.null_class() ? static_cast<float>(config.output.sample_cfg) : 1.0f;
  const Tensor samples = generate(trainer.averaged(), classes, seeds, options);
  std::vector<Image> images;
  for (int64_t i = 0; i < count; ++i)
    images.push_back(to_image(samples.rows(i, i + 1).reshape({3, model.input_size, model.input_size})));
  const std::filesystem::path dir = std::filesystem::path(config.output.dir) / "samples";
  std::filesystem::create_directories(dir);
  write_png(dir / fmt::format("step-{:07}.png", trainer.steps_done()), contact_sheet(images, 8, 4, 0));
}

std::string describe(const StepMetrics& m, double rate, double left) {
  return fmt::format("step {}  loss {:.4f}  mse {:.4f}  {:.2f} steps/s  {} left", m.step, m.loss, m.mse, rate, duration(left));
}

void say_what_follows(const TrainConfig& config) {
  DiT probe(config.model);
  fmt::print("{}\n{} parameters, {:.3g} GMACs a picture; {}\n", describe_model(config.model),
             in_millions(nn::count_parameters(probe)), static_cast<double>(count_macs(config.model)) * 1e-9,
             describe_products(product_dtype(config.train.precision)));
  fmt::print("{} steps of {} pictures; output in {}, saved every {} steps\n", config.train.steps, config.train.batch,
             config.output.dir, config.output.save_every);
  std::fflush(stdout);
}

// A path as a TOML text.
std::string quoted(const std::string& path) { return nlohmann::json(path).dump(); }

void run(const Options& options) {
  std::vector<std::string> settings = options.overrides;
  if (!options.init.empty()) settings.push_back("train.init=" + quoted(options.init));
  if (!options.teacher.empty()) settings.push_back("distil.teacher=" + quoted(options.teacher));
  const TrainConfig config = read_train_config(options.config, settings);
  catch_interrupts();
  say_what_follows(config);
  Progress progress;
  RunCallbacks callbacks;
  callbacks.on_step = [&](const StepMetrics& m, double rate, double left) {
    progress.show(static_cast<double>(m.step), static_cast<double>(config.train.steps), describe(m, rate, left));
    if (!on_terminal() && m.step % config.output.log_every == 0) progress.line(describe(m, rate, left));
  };
  callbacks.on_sample = [&](Trainer& trainer) { write_samples(trainer, config); };
  callbacks.stop_requested = [] { return interrupted(); };
  const int64_t steps = run_training(config, options.resume, callbacks);
  progress.line(fmt::format("{} after {} steps; the model is {}/model.safetensors{}",
                            steps < config.train.steps ? "stopped" : "done", steps, config.output.dir,
                            steps < config.train.steps ? "; go on with --resume" : ""));
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* train = app.add_subcommand("train", "Train a model as a configuration file says");
  auto options = std::make_shared<Options>();
  train->add_option("config", options->config, "TOML file; see configs/")->required();
  train->add_option("settings", options->overrides, "Settings that override the file's: train.lr=2e-4");
  train->add_option("--init", options->init, "Weights to start from (train.init)")->type_name("FILE");
  train->add_option("--teacher", options->teacher, "Teacher to distil from (distil.teacher)")->type_name("FILE");
  train->add_flag("--resume", options->resume, "Go on from the run's checkpoint");
  train->callback([options] { run(*options); });
}

}  // namespace linnet::app
