// linnet train: trains a model as a TOML file says.
#include <fmt/format.h>

#include <csignal>

#include "io/sheet.h"
#include "ops/matmul.h"
#include "pipeline/generate.h"
#include "terminal.h"
#include "train/trainer.h"
#include "verbs.h"

namespace linnet::app {
namespace {

volatile std::sig_atomic_t interrupted = 0;

// The first Ctrl-C finishes the step and saves; a second one ends the program as usual.
void on_interrupt(int signal_number) {
  interrupted = 1;
  std::signal(signal_number, SIG_DFL);
}

struct Options {
  std::string config;
  std::vector<std::string> overrides;
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

void run(const Options& options) {
  const TrainConfig config = read_train_config(options.config, options.overrides);
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  DiT probe(config.model);
  const bool bf16 = config.train.precision == "bf16" ||
                    (config.train.precision == "auto" && ops::fastest_product_dtype() == DType::bf16);
  fmt::print("{} {}x{} width {}, {} heads, {} tokens: {:.2f} M parameters, {:.2f} GMACs; products in {} ({})\n",
             nn::name_of(config.model.mixer), config.model.depth, "blocks", config.model.hidden_size, config.model.num_heads,
             config.model.tokens(), static_cast<double>(nn::count_parameters(probe)) * 1e-6,
             static_cast<double>(count_macs(config.model)) * 1e-9, bf16 ? "bf16" : "f32", ops::matmul_engine_name());
  std::fflush(stdout);
  Progress progress;
  RunCallbacks callbacks;
  callbacks.on_step = [&](const StepMetrics& m, double rate, double left) {
    progress.show(static_cast<double>(m.step), static_cast<double>(config.train.steps), describe(m, rate, left));
    if (!on_terminal() && m.step % config.output.log_every == 0) progress.line(describe(m, rate, left));
  };
  callbacks.on_sample = [&](Trainer& trainer) { write_samples(trainer, config); };
  callbacks.stop_requested = [] { return interrupted != 0; };
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
  train->add_flag("--resume", options->resume, "Go on from the run's checkpoint");
  train->callback([options] { run(*options); });
}

}  // namespace linnet::app
