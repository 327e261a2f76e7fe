// linnet train: trains a model as a preset, a TOML file and settings say.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "bench_report.h"
#include "interrupt.h"
#include "io/sheet.h"
#include "io/text.h"
#include "model_argument.h"
#include "ops/matmul.h"
#include "pipeline/generate.h"
#include "terminal.h"
#include "train/presets.h"
#include "train/trainer.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  std::string preset, init, teacher;
  bool resume = false, list = false, print = false;
};

void list_presets() {
  Table table("presets", "Presets: linnet train --preset NAME data.replay=FILE",
              {{"name", "name"},
               {"model", "model"},
               {"heads", "heads"},
               {"pixels", "pixels"},
               {"batch", "batch"},
               {"steps", "steps"},
               {"lr", "lr"},
               {"lambdas", "noise/variance"},
               {"init", "init from"},
               {"teacher", "teacher"},
               {"source", "source"}});
  for (const Preset& p : presets()) {
    const auto text = [](std::string_view name) { return name.empty() ? Cell() : Cell(std::string(name)); };
    const auto number = [](int64_t value) { return Cell(static_cast<double>(value)); };
    const Cell lambdas = p.teacher.empty() ? Cell() : Cell(fmt::format("{:.2f}/{:.2f}", p.noise, p.variance));
    table.add({text(p.name), text(p.model), number(dit_preset(p.model).num_heads), number(p.pixels),
               number(p.batch), number(p.steps), Preset::lr, lambdas, text(p.ancestor), text(p.teacher),
               text(p.source)});
  }
  fmt::print("{}", table.text());
}

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
  write_image(dir / fmt::format("step-{:07}.png", trainer.steps_done()), contact_sheet(images, 8, 4, 0));
}

// The loss, how long it will take, and the terms that the loss is made of; docs/training.md says what they are.
std::string describe(const TrainConfig& config, const StepMetrics& m, double rate, double left) {
  std::string text = fmt::format("step {}  loss {:.4f}  {:.2f} steps/s  {} left  mse {:.4f}", m.step, m.loss,
                                 rate, duration(left), m.mse);
  const bool taught = !config.distil.teacher.empty(), variance = config.model.learn_sigma;
  if (variance) text += fmt::format("  bound {:.4f}", m.bound);
  if (taught) text += fmt::format("  noise {:.4f}", m.noise_distance);
  if (taught && variance) text += fmt::format("  variance {:.4f}", m.variance_distance);
  return text;
}

void say_what_follows(const TrainConfig& config) {
  DiT probe(config.model);
  fmt::print("{}\n{} parameters, {:.3g} GMACs a picture; {}\n", describe_model(config.model),
             in_millions(nn::count_parameters(probe)), static_cast<double>(count_macs(config.model)) * 1e-9,
             describe_products(ops::product_dtype_from_name(config.train.precision)));
  if (const DistilConfig& distil = config.distil; !distil.teacher.empty())
    fmt::print("learns from {}: {}; products in {}; weights: noise {}, variance {}\n",
               printable(distil.teacher),
               describe_model(read_model_config(std::filesystem::path(distil.teacher))), distil.precision,
               distil.noise, distil.variance);
  fmt::print("{} steps of {} pictures; output in {}, saved every {} steps\n", config.train.steps,
             config.train.batch, config.output.dir, config.output.save_every);
  std::fflush(stdout);
}

// A path as a TOML text.
std::string quoted(const std::string& path) { return nlohmann::json(path).dump(); }

// The first argument may be a setting already, where a preset stands for the file.
bool is_setting(const std::string& argument) {
  static const std::regex beginning("\\w+\\.\\w+=");
  return std::regex_search(argument, beginning, std::regex_constants::match_continuous);
}

ConfigSource source_of(const Options& options) {
  ConfigSource source{options.preset, options.config, options.overrides, options.resume};
  if (is_setting(options.config)) {
    source.file.clear();
    source.overrides.insert(source.overrides.begin(), options.config);
  }
  if (source.file.empty() && source.preset.empty())
    throw UsageError("give a configuration file, or --preset with a name that \"linnet train --list\" shows");
  if (!options.init.empty()) source.overrides.push_back("train.init=" + quoted(options.init));
  if (!options.teacher.empty()) source.overrides.push_back("distil.teacher=" + quoted(options.teacher));
  return source;
}

void run(const Options& options) {
  if (options.list) return list_presets();
  if (options.print) return fmt::print("{}", to_toml(find_preset(options.preset)));
  const TrainConfig config = read_train_config(source_of(options));
  catch_interrupts();
  say_what_follows(config);
  Progress progress;
  RunCallbacks callbacks;
  callbacks.on_step = [&](const StepMetrics& m, double rate, double left) {
    progress.show(static_cast<double>(m.step), static_cast<double>(config.train.steps),
                  describe(config, m, rate, left));
    if (!on_terminal() && m.step % config.output.log_every == 0) progress.line(describe(config, m, rate, left));
  };
  callbacks.on_sample = [&](Trainer& trainer) { write_samples(trainer, config); };
  callbacks.stop_requested = [] { return interrupted(); };
  const int64_t steps = run_training(config, options.resume, callbacks);
  progress.line(fmt::format("{} after {} steps; the model is {}/model.safetensors{}",
                            steps < config.train.steps ? "stopped" : "done", steps, config.output.dir,
                            steps < config.train.steps ? "; go on with --resume" : ""));
}

}  // namespace

void add_train(const Verb& app) {
  const Verb train = app.add_subcommand("train", "Train a model as a configuration file or a preset says");
  auto options = std::make_shared<Options>();
  const Argument config = train.add_option("config", options->config, "TOML file; see configs/");
  const Argument settings =
      train.add_option("settings", options->overrides, "Settings that override the file's: train.lr=2e-4");
  const Argument preset =
      train.add_option("--preset", options->preset, "Model of a paper, under the file's settings")
          .type_name("NAME");
  train.add_flag("--list", options->list, "List the presets");
  train.add_flag("--print", options->print, "Print the preset as a file to copy and change")
      .needs(preset)
      .excludes(config)
      .excludes(settings);
  train.add_option("--init", options->init, "Weights to start from (train.init)").type_name("FILE");
  train.add_option("--teacher", options->teacher, "Teacher to distil from (distil.teacher)").type_name("FILE");
  train.add_flag("--resume", options->resume, "Go on from the run's checkpoint");
  train.callback([options] { run(*options); });
}

}  // namespace linnet::app
