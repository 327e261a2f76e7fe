#include "train/config.h"

#include <toml++/toml.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>
#include <sstream>

#include "core/text.h"
#include "store/model_file.h"
#include "train/checkpoint.h"
#include "train/presets.h"

namespace linnet {
namespace {

std::string suggestion(const std::string& name, const std::vector<std::string>& known) {
  const std::string near = nearest(name, known);
  return near.empty() ? fmt::format("; known: {}", fmt::join(known, ", "))
                      : fmt::format("; did you mean \"{}\"?", near);
}

// Takes known keys out of a table; what is left at the end is unknown.
class Section {
 public:
  Section(toml::table& root, std::string name) : name_(std::move(name)) {
    if (toml::node* node = root.get(name_)) {
      table_ = node->as_table();
      if (!table_) throw UsageError(fmt::format("configuration: [{}] must be a table", name_));
    }
  }

  void take(const char* key, std::string& value) { get<std::string>(key, value, "a text"); }
  void take(const char* key, bool& value) { get<bool>(key, value, "true or false"); }
  void take(const char* key, int64_t& value) { get<int64_t>(key, value, "a whole number"); }
  void take(const char* key, double& value) {
    known_.emplace_back(key);
    if (const toml::node* node = find(key)) {
      const auto found = node->value<double>();  // takes whole numbers too
      if (!found || !std::isfinite(*found)) refuse(key, "a number");
      value = *found;
    }
  }

  void done() const {
    if (!table_) return;
    for (const auto& [key, value] : *table_) {
      const std::string text(key.str());
      if (std::find(known_.begin(), known_.end(), text) == known_.end())
        throw UsageError(fmt::format("configuration: there is no setting \"{}.{}\"{}", name_, text,
                                     suggestion(text, known_)));
    }
  }

 private:
  template <class T>
  void get(const char* key, T& value, const char* kind) {
    known_.emplace_back(key);
    if (const toml::node* node = find(key)) {
      const auto found = node->value_exact<T>();
      if (!found) refuse(key, kind);
      value = *found;
    }
  }
  const toml::node* find(const char* key) const { return table_ ? table_->get(key) : nullptr; }
  [[noreturn]] void refuse(const char* key, const char* kind) const {
    throw UsageError(fmt::format("configuration: {}.{} must be {}", name_, key, kind));
  }

  std::string name_;
  toml::table* table_ = nullptr;
  std::vector<std::string> known_;
};

toml::table parse(const std::string& text, const std::string& source) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw UsageError(fmt::format("{}, line {}: {}", source, error.source().begin.line, error.description()));
  }
}

// "train.lr=2e-4": the value as TOML reads it, else as plain text.
void apply_override(toml::table& root, const std::string& text) {
  const size_t equals = text.find('='), dot = text.find('.');
  if (equals == std::string::npos || dot == std::string::npos || dot > equals)
    throw UsageError(fmt::format("\"{}\" is not of the form table.key=value", text));
  const std::string table = text.substr(0, dot), key = text.substr(dot + 1, equals - dot - 1);
  const std::string value = text.substr(equals + 1);
  toml::table parsed;
  try {
    parsed = toml::parse("v = " + value);
  } catch (const toml::parse_error&) {
    parsed = toml::table{{"v", value}};
  }
  if (!root.contains(table)) root.insert(table, toml::table{});
  toml::table* target = root.get(table)->as_table();
  if (!target) throw UsageError(fmt::format("configuration: [{}] must be a table", table));
  parsed.get("v")->visit([&](auto& node) { target->insert_or_assign(key, node); });
}

void require(bool condition, std::string_view sentence) {
  if (!condition) throw UsageError(fmt::format("configuration: {}", sentence));
}

// Lays what `over` says upon `under`.
void lay_over(toml::table& under, const toml::table& over) {
  for (const auto& [key, node] : over) {
    toml::table* below = under.contains(key) ? under.get(key)->as_table() : nullptr;
    const toml::table* above = node.as_table();
    if (below && above)
      for (const auto& [inner, value] : *above) below->insert_or_assign(inner, value);
    else
      under.insert_or_assign(key, node);
  }
}

// A preset says how large a model is, not what it is fed.
void take_size(const DiTConfig& preset, DiTConfig& model) {
  model.patch_size = preset.patch_size;
  model.hidden_size = preset.hidden_size;
  model.depth = preset.depth;
  model.num_heads = preset.num_heads;
  model.mixer = preset.mixer;
}

void read_model(toml::table& root, DiTConfig& model) {
  Section section(root, "model");
  std::string preset, mixer, prediction;
  section.take("preset", preset);
  if (!preset.empty()) take_size(dit_preset(preset), model);
  section.take("input_size", model.input_size);
  section.take("patch_size", model.patch_size);
  section.take("in_channels", model.in_channels);
  section.take("hidden_size", model.hidden_size);
  section.take("depth", model.depth);
  section.take("num_heads", model.num_heads);
  section.take("mlp_ratio", model.mlp_ratio);
  section.take("num_classes", model.num_classes);
  section.take("class_dropout", model.class_dropout);
  section.take("learn_sigma", model.learn_sigma);
  section.take("mixer", mixer);
  if (!mixer.empty()) model.mixer = nn::mixer_from_name(mixer);
  section.take("prediction", prediction);
  if (!prediction.empty()) model.prediction = prediction_from_name(prediction);
  section.done();
  model.validate();
}

void read_optimizer(toml::table& root, OptimizerConfig& train) {
  Section section(root, "train");
  section.take("steps", train.steps);
  section.take("batch", train.batch);
  section.take("accumulate", train.accumulate);
  section.take("lr", train.lr);
  section.take("weight_decay", train.weight_decay);
  section.take("beta1", train.beta1);
  section.take("beta2", train.beta2);
  section.take("epsilon", train.epsilon);
  section.take("schedule", train.schedule);
  section.take("warmup", train.warmup);
  section.take("clip", train.clip);
  section.take("ema", train.ema);
  section.take("timesteps", train.timesteps);
  section.take("timesteps_mean", train.timesteps_mean);
  section.take("timesteps_deviation", train.timesteps_deviation);
  section.take("precision", train.precision);
  section.take("checkpointing", train.checkpointing);
  section.take("init", train.init);
  section.take("seed", train.seed);
  section.take("threads", train.threads);
  section.done();
  require(train.steps > 0 && train.batch > 0 && train.accumulate > 0,
          "train.steps, batch and accumulate are positive");
  require(train.batch % train.accumulate == 0, "train.accumulate must divide train.batch");
  require(train.lr > 0 && train.lr < 10, "train.lr must lie in 0..10");
  require(train.beta1 >= 0 && train.beta1 < 1 && train.beta2 >= 0 && train.beta2 < 1,
          "train.beta1 and beta2 lie in 0..1");
  require(train.epsilon > 0 && train.weight_decay >= 0 && train.clip >= 0,
          "train.epsilon, weight_decay, clip are not negative");
  require(train.ema >= 0 && train.ema < 1, "train.ema must lie in 0..1");
  require(train.warmup >= 0 && train.threads >= 0 && train.threads <= 1024,
          "train.warmup and threads are not negative");
  require(train.schedule == "constant" || train.schedule == "cosine",
          "train.schedule is \"constant\" or \"cosine\"");
  require(train.timesteps == "uniform" || train.timesteps == "logit_normal",
          "train.timesteps is \"uniform\" or \"logit_normal\"");
  require(train.timesteps_deviation > 0, "train.timesteps_deviation is positive");
  require(train.precision == "auto" || train.precision == "f32" || train.precision == "bf16",
          "train.precision is \"auto\", \"f32\" or \"bf16\"");
}

void read_data(toml::table& root, DataConfig& data) {
  Section section(root, "data");
  section.take("path", data.path);
  section.take("replay", data.replay);
  section.take("flip", data.flip);
  section.done();
  require(data.path.empty() != data.replay.empty(), "give either data.path or data.replay");
}

void read_distil(toml::table& root, DistilConfig& distil) {
  Section section(root, "distil");
  section.take("teacher", distil.teacher);
  section.take("noise", distil.noise);
  section.take("variance", distil.variance);
  section.take("precision", distil.precision);
  section.done();
  require(distil.noise >= 0 && distil.variance >= 0, "distil.noise and variance are not negative");
  require(distil.precision == "auto" || distil.precision == "f32" || distil.precision == "bf16" ||
              distil.precision == "int8",
          "distil.precision is \"auto\", \"f32\", \"bf16\" or \"int8\"");
}

void read_output(toml::table& root, OutputConfig& output) {
  Section section(root, "output");
  section.take("dir", output.dir);
  section.take("log_every", output.log_every);
  section.take("save_every", output.save_every);
  section.take("sample_every", output.sample_every);
  section.take("sample_steps", output.sample_steps);
  section.take("sample_cfg", output.sample_cfg);
  section.done();
  require(!output.dir.empty(), "output.dir names the folder of the run");
  require(output.log_every > 0 && output.save_every > 0 && output.sample_every >= 0,
          "output intervals are positive");
}

void check_tables(const toml::table& root) {
  const std::vector<std::string> tables = {"model", "data", "train", "distil", "output"};
  for (const auto& [key, value] : root)
    if (std::find(tables.begin(), tables.end(), std::string(key.str())) == tables.end())
      throw UsageError(fmt::format("configuration: there is no table \"{}\"{}", key.str(),
                                   suggestion(std::string(key.str()), tables)));
}

// The model that the run's weights are of, if it starts from any.
std::optional<DiTConfig> model_to_start_from(const TrainConfig& config, bool resume) {
  const auto checkpoint = std::filesystem::path(config.output.dir) / checkpoint_name;
  if (resume && std::filesystem::exists(checkpoint)) return open_checkpoint(checkpoint).model;
  if (!config.train.init.empty()) return read_model_config(std::filesystem::path(config.train.init));
  return std::nullopt;
}

nlohmann::ordered_json settings_of(const DiTConfig& model) {
  auto settings = nlohmann::ordered_json::parse(to_json(model));
  settings.erase("model");                    // the kind of model, of which there is one
  settings.emplace("prediction", "epsilon");  // which is not written where it is this
  return settings;
}

// All settings of a model, so that the written configuration says them wherever they came from.
toml::table table_of(const DiTConfig& model) {
  const auto settings = settings_of(model);
  toml::table table;
  for (const auto& [key, value] : settings.items()) {
    if (value.is_string()) table.insert(key, value.get<std::string>());
    if (value.is_boolean()) table.insert(key, value.get<bool>());
    if (value.is_number_integer()) table.insert(key, value.get<int64_t>());
    if (value.is_number_float()) table.insert(key, value.get<double>());
  }
  return table;
}

TrainConfig config_from(toml::table root, const std::vector<std::string>& overrides, bool resume) {
  for (const std::string& text : overrides) apply_override(root, text);
  check_tables(root);
  TrainConfig config;
  read_data(root, config.data);
  read_optimizer(root, config.train);
  read_distil(root, config.distil);
  read_output(root, config.output);
  const auto start = model_to_start_from(config, resume);
  if (start) config.model = *start;
  read_model(root, config.model);
  if (start && !resume)
    if (const auto other = first_difference(config.model, *start))
      throw UsageError(fmt::format("configuration: model.{} is {}, but {} in {}", other->setting, other->first,
                                   other->second, config.train.init));
  root.insert_or_assign("model", table_of(config.model));
  std::ostringstream out;
  out << root;
  config.toml = out.str();
  return config;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file || std::filesystem::is_directory(path))
    throw UsageError(fmt::format("{}: this configuration cannot be read", path.string()));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

TrainConfig parse_train_config(const std::string& text, const std::vector<std::string>& overrides) {
  return config_from(parse(text, "configuration"), overrides, false);
}

TrainConfig read_train_config(const ConfigSource& source) {
  toml::table root;
  if (!source.preset.empty()) root = parse(to_toml(find_preset(source.preset)), source.preset);
  if (source.file.empty()) return config_from(std::move(root), source.overrides, source.resume);
  lay_over(root, parse(read_text(source.file), source.file.string()));
  try {
    return config_from(std::move(root), source.overrides, source.resume);
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("{}: {}", source.file.string(), error.what()));
  }
}

std::string teacher_of(const std::string& toml) {
  return parse(toml, "checkpoint")["distil"]["teacher"].value_or(std::string());
}

std::optional<Difference> first_difference(const DiTConfig& a, const DiTConfig& b) {
  const auto first = settings_of(a), second = settings_of(b);
  for (const auto& [setting, value] : first.items()) {
    const bool only_rate = setting == "class_dropout" && a.null_class() == b.null_class();
    if (value != second[setting] && !only_rate)
      return Difference{setting, value.dump(), second[setting].dump()};
  }
  return std::nullopt;
}

double learning_rate(const OptimizerConfig& config, int64_t step) {
  if (step < config.warmup)
    return config.lr * static_cast<double>(step + 1) / static_cast<double>(config.warmup);
  if (config.schedule == "constant") return config.lr;
  const double progress = static_cast<double>(step - config.warmup) /
                          static_cast<double>(std::max<int64_t>(1, config.steps - config.warmup));
  return config.lr * 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(1.0, progress)));
}

}  // namespace linnet
