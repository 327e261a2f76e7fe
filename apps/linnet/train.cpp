// linnet train: trains a model as a preset, a TOML file and settings say.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "bench_report.h"
#include "core/team.h"
#include "device_argument.h"
#include "interrupt.h"
#include "io/file.h"
#include "io/sheet.h"
#include "io/text.h"
#include "model_argument.h"
#include "pipeline/generate.h"
#include "pipeline/text_to_image.h"
#include "store/transformer_file.h"
#include "terminal.h"
#include "train/checkpoint.h"
#include "train/open_model.h"
#include "train/presets.h"
#include "train/settings.h"
#include "train/trainer.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  std::string preset, init, teacher, device;
  bool resume = false, list = false, list_settings = false, print = false;
};

void list_presets() {
  Table table("presets", "Presets: linnet train --preset NAME data.path=LATENTS",
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
    const int64_t heads = std::visit([](const auto& model) { return model.num_heads; }, model_preset(p.model));
    table.add({text(p.name), text(p.model), number(heads), number(p.pixels), number(p.batch), number(p.steps),
               p.lr(), lambdas, text(p.ancestor), text(p.teacher), text(p.source)});
  }
  fmt::print("{}", table.text());
}

GenerateOptions sampling(const TrainConfig& config, bool guided) {
  GenerateOptions options;
  options.steps = static_cast<int>(config.output.sample_steps);
  options.guidance_scale = guided ? static_cast<float>(config.output.sample_cfg) : 1.0f;
  return options;
}

// One picture of each of up to 64 classes, evenly chosen.
Tensor sample_classes(DiT& model, const TrainConfig& config) {
  const int64_t count = std::min<int64_t>(64, model.config().num_classes);
  std::vector<int64_t> classes;
  std::vector<uint64_t> seeds;
  for (int64_t i = 0; i < count; ++i) {
    classes.push_back(i * model.config().num_classes / count);
    seeds.push_back(static_cast<uint64_t>(i));
  }
  return generate(model, classes, seeds, sampling(config, model.config().null_class()));
}

// One picture of each text of output.sample_prompts; none without such, or without a text encoder, which is the
// frozen one unless one is trained along.
Tensor sample_texts(TextTrainee& model, const T5Encoder* frozen, const TrainConfig& config) {
  const std::vector<std::string>& prompts = config.output.sample_prompts;
  const T5Encoder* encoder = frozen ? frozen : model.encoder();
  if (prompts.empty() || !encoder) return {};
  TextPaintRequest request;
  request.count = static_cast<int64_t>(prompts.size());
  request.height = request.width = config.of_texts().sample_size;
  request.options = sampling(config, true);
  request.options.guided = usual_interval(config.of_texts());
  encode_for(request, prompts, "", *encoder, Tokenizer::open(config.text.tokenizer), config.of_texts());
  return paint_batch(model.model(), request, 0, request.count);
}

void write_samples(Trainer& trainer, const TrainConfig& config) {
  const Shape each = picture_shape(config.model);
  if (each[0] != 3) return;
  auto* texts = dynamic_cast<TextTrainee*>(&trainer.averaged());
  const Tensor samples = texts
                             ? sample_texts(*texts, trainer.frozen_encoder(), config)
                             : sample_classes(dynamic_cast<ClassTrainee&>(trainer.averaged()).model(), config);
  if (!samples.defined()) return;
  const Tensor pictures = samples.host();
  std::vector<Image> images;
  for (int64_t i = 0; i < pictures.size(0); ++i)
    images.push_back(to_image(pictures.rows(i, i + 1).reshape(each)));
  const std::filesystem::path dir = std::filesystem::path(config.output.dir) / "samples";
  make_folder(dir);
  write_image(dir / fmt::format("step-{:07}.png", trainer.steps_done()), contact_sheet(images, 8, 4, 0));
}

// The loss, how long it will take, and the terms that the loss is made of; docs/training.md says what they are.
std::string describe(const TrainConfig& config, const StepMetrics& m, double rate, double left) {
  std::string text = fmt::format("step {}  loss {:.4f}  {:.2f} steps/s  {} left  mse {:.4f}", m.step, m.loss,
                                 rate, duration(left), m.mse);
  const bool taught = !config.distil.teacher.empty(), variance = learns_variance(config.model);
  if (variance) text += fmt::format("  bound {:.4f}", m.bound);
  if (taught) text += fmt::format("  noise {:.4f}", m.noise_distance);
  if (taught && variance) text += fmt::format("  variance {:.4f}", m.variance_distance);
  return text;
}

// In billions, on one picture.
double billion_macs(const ModelConfig& model) {
  if (const auto* text = std::get_if<PixArtConfig>(&model))
    return gemm_flops(*text, text->sample_size, text->sample_size, text->caption_tokens) / 2 * 1e-9;
  return static_cast<double>(count_macs(std::get<DiTConfig>(model))) * 1e-9;
}

std::string describe(const ModelConfig& model) {
  return std::visit([](const auto& config) { return describe_model(config); }, model);
}

// A run goes on as the configuration says now, which need not be as it began.
void say_what_changed(const TrainConfig& config) {
  const std::filesystem::path checkpoint = std::filesystem::path(config.output.dir) / checkpoint_name;
  if (!is_there(checkpoint)) return;
  for (const std::string& change : changed_settings(open_checkpoint(checkpoint).toml, config.toml))
    fmt::print("otherwise than before: {}\n", printable(change));
}

void say_what_follows(const TrainConfig& config) {
  const Device device = device_from_name(config.train.device);
  const auto probe = make_trainee(config);
  fmt::print("{}{}\n{} parameters, {:.3g} GMACs a picture; {}\n", describe(config.model),
             config.trains_text_encoder() ? "; a text encoder is trained along" : "",
             in_millions(nn::count_parameters(*probe)), billion_macs(config.model),
             describe_products(training_product_dtype(config.train), device));
  if (const DistilConfig& distil = config.distil; !distil.teacher.empty())
    fmt::print("learns from {}: {}; products in {}; weights: noise {}, variance {}\n",
               printable(distil.teacher), describe(read_model_config(open_file_or_builtin(distil.teacher))),
               distil.precision == "auto" ? "the fastest type" : distil.precision, distil.noise,
               distil.variance);
  for (const std::string& remark : config.remarks) fmt::print("{}\n", remark);
  if (config.output.sample_every > 0 && picture_shape(config.model)[0] != 3)
    fmt::print("no samples on the way: the model paints latents (linnet generate decodes them)\n");
  fmt::print("{} of {}; output in {}, saved every {}\n", counted(config.train.steps, "step"),
             counted(config.train.batch, "picture"), config.output.dir,
             counted(config.output.save_every, "step"));
  std::fflush(stdout);
}

// A path as a TOML text.
std::string quoted(const std::string& path) {
  if (!is_utf8(path)) throw UsageError(fmt::format("the name \"{}\" is not UTF-8", printable(path)));
  return nlohmann::json(path).dump();
}

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
  if (!options.device.empty()) source.overrides.push_back("train.device=" + quoted(options.device));
  if (!options.teacher.empty()) source.overrides.push_back("distil.teacher=" + quoted(options.teacher));
  return source;
}

// Of several processes, also where gradients go, as one way is much slower than the other.
void say_how_many(const Team& team, const TrainConfig& config) {
  if (team.is_alone()) return;
  const bool through_memory = config.train.device != "cpu" && !team.cards_talk();
  fmt::print("{} processes, {} a step each{}\n", team.count(),
             counted(config.train.batch / team.count(), "picture"),
             through_memory ? "; without NCCL their cards add through the processors' memory" : "");
  std::fflush(stdout);
}

TrainConfig read_config(const Options& options) {
  TrainConfig config = read_train_config(source_of(options));
  config.train.device = own_device(config.train.device);
  return config;
}

// Processes that are told otherwise would wait for each other for ever.
void check_alike(const TrainConfig& config, const Options& options, Team& team) {
  const bool alike = team.all_same(nn::hash_name(config.toml + (options.resume ? " resumed" : "")));
  team.together([&] {
    if (!alike) throw UsageError("the processes' configurations differ: give all of them the same");
  });
}

// Returns whether it was stopped.
bool train(const Options& options, Team& team) {
  const TrainConfig config = team.together([&] { return read_config(options); });
  check_alike(config, options, team);
  catch_interrupts();
  team.work_on(team.together([&] { return open_device(config.train.device); }));
  team.together([&] {
    if (!team.leads()) return;
    if (options.resume) say_what_changed(config);
    say_what_follows(config);
    say_how_many(team, config);
  });
  Progress progress;
  RunCallbacks callbacks;
  callbacks.on_step = [&](const StepMetrics& m, double rate, double left) {
    progress.show(static_cast<double>(m.step), static_cast<double>(config.train.steps),
                  describe(config, m, rate, left));
    if (!on_terminal() && m.step % config.output.log_every == 0) progress.line(describe(config, m, rate, left));
  };
  callbacks.on_remark = [](const std::string& remark) {
    fmt::print("{}\n", remark);
    std::fflush(stdout);
  };
  callbacks.on_sample = [&](Trainer& trainer) { write_samples(trainer, config); };
  callbacks.on_rescue = [&](int64_t step) {
    progress.line(fmt::format("an error ends the run; step {} is saved: go on with --resume", step));
  };
  callbacks.stop_requested = [] { return interrupted(); };
  const int64_t steps = run_training(config, options.resume, callbacks, team);
  const bool is_stopped = steps < config.train.steps;
  if (!team.leads()) return is_stopped;
  progress.line(fmt::format("{} after {}; the model is {}/model.safetensors{}", is_stopped ? "stopped" : "done",
                            counted(steps, "step"), config.output.dir,
                            is_stopped ? "; go on with --resume" : ""));
  return is_stopped;
}

// Of several processes the one that fails says why before they end together: who ended first would have the
// launcher kill it.
bool train_in_team(const Options& options) {
  Team team = Team::open();
  if (team.is_alone()) return train(options, team);
  try {
    return train(options, team);
  } catch (const std::exception& error) {
    throw FailedElsewhere{tell_failure(error)};
  }
}

void run(const Options& options) {
  if (options.list) return list_presets();
  if (options.list_settings) return fmt::print("{}", describe_settings());
  if (options.print) return fmt::print("{}", to_toml(find_preset(options.preset)));
  const bool is_stopped = train_in_team(options);
  if (is_stopped) end_if_interrupted();  // so that no script takes it for a model that is done
}

}  // namespace

void add_train(const Verb& app) {
  const Verb train = app.add_subcommand("train", "Train a model as a configuration file or a preset says");
  auto options = std::make_shared<Options>();
  const Argument config =
      train.add_option("config", options->config, "TOML file of settings, as those in configs/");
  // Not "settings", which newer versions of CLI11 take for the same as --settings.
  const Argument settings =
      train.add_option("setting", options->overrides, "Settings that override the file's: train.lr=2e-4");
  const Argument preset =
      train.add_option("--preset", options->preset, "Model of a paper, under the file's settings")
          .type_name("NAME");
  const Argument list = train.add_flag("--list", options->list, "List the presets");
  const Argument known =
      train.add_flag("--settings", options->list_settings, "List all settings, and what each is usually");
  const Argument print =
      train.add_flag("--print", options->print, "Print the preset as a file to copy and change");
  print.needs(preset).excludes(list).excludes(known);
  known.excludes(list).excludes(preset);
  const Argument init =
      train.add_option("--init", options->init, "Weights to start from, or builtin (train.init)")
          .type_name("FILE");
  const Argument teacher =
      train.add_option("--teacher", options->teacher, "Teacher to distil from, or builtin (distil.teacher)")
          .type_name("FILE");
  const Argument device =
      train.add_option("--device", options->device, "Where to train: cpu, cuda or cuda:1 (train.device)")
          .type_name("NAME");
  const Argument resume = train.add_flag("--resume", options->resume, "Go on from the run's checkpoint");
  for (const Argument& of_a_run : {config, settings, init, teacher, device, resume}) {
    print.excludes(of_a_run);
    list.excludes(of_a_run);
    known.excludes(of_a_run);
  }
  train.callback([options] { run(*options); });
}

}  // namespace linnet::app
