#include "train/config.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>
#include <sstream>
#include <type_traits>

#include "io/file.h"
#include "io/text.h"
#include "ops/matmul.h"
#include "store/transformer_file.h"
#include "train/checkpoint.h"
#include "train/idle_settings.h"
#include "train/open_model.h"
#include "train/presets.h"
#include "train/settings.h"
#include "train/toml_section.h"

namespace linnet {
namespace {

toml::table parse(const std::string& text, const std::string& source) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw UsageError(fmt::format("{}, line {}: {}", source, error.source().begin.line, error.description()));
  }
}

// "train.lr=2e-4": the value as TOML reads it, else as plain text.
void apply_override(ConfigTables& root, const std::string& text) {
  const size_t equals = text.find('='), dot = text.find('.');
  if (!is_utf8(text)) throw UsageError(fmt::format("\"{}\" is not UTF-8", printable(text)));
  if (text.find_first_of("\r\n") != std::string::npos)
    throw UsageError(fmt::format("\"{}\": a setting holds no line breaks", printable(text)));
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
  if (!root.tables.contains(table)) root.tables.insert(table, toml::table{});
  toml::table* target = root.tables.get(table)->as_table();
  if (!target) throw UsageError(fmt::format("configuration: [{}] must be a table", table));
  parsed.get("v")->visit([&](auto& node) { target->insert_or_assign(key, node); });
  root.typed.insert_or_assign(table + "." + key, value);
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

// "train.batch", and so on.
std::set<std::string> names_in(const toml::table& root) {
  std::set<std::string> names;
  for (const auto& [table, keys] : root)
    if (keys.is_table())
      for (const auto& [key, value] : *keys.as_table())
        names.insert(fmt::format("{}.{}", table.str(), key.str()));
  return names;
}

// What a file says, over a preset, and over it what is typed.
ConfigTables lay_together(toml::table preset, const toml::table& file,
                          const std::vector<std::string>& overrides) {
  ConfigTables root{std::move(preset), names_in(file)};
  lay_over(root.tables, file);
  for (const std::string& text : overrides) apply_override(root, text);
  return root;
}

void require(bool condition, std::string_view sentence) {
  if (!condition) throw UsageError(fmt::format("configuration: {}", sentence));
}

// What steps compute with is f32: 0.99999999 would be 1 there, 1e-300 would be 0, and 1e300 infinite.
constexpr double largest = std::numeric_limits<float>::max();
float rounded(double value) { return static_cast<float>(std::clamp(value, -largest, largest)); }

void require_share(std::string_view name, double value) {
  require(value >= 0 && rounded(value) < 1,
          fmt::format("{} must be at least 0 and below 1, not {}", name, value));
}

void require_positive(std::string_view name, double value) {
  require(rounded(value) > 0 && value <= largest, fmt::format("{} must be above 0, not {}", name, value));
}

void require_not_negative(std::string_view name, double value) {
  require(value >= 0 && value <= largest, fmt::format("{} must be at least 0, not {}", name, value));
}

// What a preset says of a model is how large it is, not what it is fed.
template <class Config>
Config sized_as(const Config& preset, Config model) {
  model.patch_size = preset.patch_size;
  model.hidden_size = preset.hidden_size;
  model.depth = preset.depth;
  model.num_heads = preset.num_heads;
  model.mixer = preset.mixer;
  if constexpr (std::is_same_v<Config, PixArtConfig>) model.num_cross_heads = preset.num_cross_heads;
  return model;
}

// The kind of model that is meant, and what its settings are unless they are said.
ModelConfig model_to_begin_with(const std::string& kind, const std::string& preset, const ModelConfig& usual) {
  require(kind.empty() || kind == "dit" || kind == "pixart", "model.kind is \"dit\" or \"pixart\"");
  const ModelConfig named = preset.empty() ? usual : model_preset(preset);
  const bool of_texts = kind.empty() ? is_of_texts(named) : kind == "pixart";
  const ModelConfig model = of_texts == is_of_texts(usual) ? usual : new_model(of_texts);
  if (preset.empty()) return model;
  require(is_of_texts(named) == of_texts, "model.preset is of another kind than model.kind");
  if (of_texts) return sized_as(std::get<PixArtConfig>(named), std::get<PixArtConfig>(model));
  return sized_as(std::get<DiTConfig>(named), std::get<DiTConfig>(model));
}

// The settings of a model by the names that they have in JSON, but for its kind.
nlohmann::ordered_json settings_of(const ModelConfig& model) {
  auto settings = nlohmann::ordered_json::parse(to_full_json(model));
  settings.erase("model");
  return settings;
}

template <class T>
void take_setting(Section& section, const std::string& key, nlohmann::ordered_json& setting) {
  T value = setting.get<T>();
  section.take(key.c_str(), value);
  setting = value;
}

// Every setting is of the kind that it is of in JSON. Lists are not for people to set: they come from weights.
ModelConfig read_model(ConfigTables& root, const ModelConfig& usual) {
  Section section(root, "model");
  std::string preset, kind;
  section.take("kind", kind);
  section.take("preset", preset);
  const ModelConfig begun = model_to_begin_with(kind, preset, usual);
  nlohmann::ordered_json settings = settings_of(begun);
  for (auto& [key, setting] : settings.items()) {
    if (setting.is_string()) take_setting<std::string>(section, key, setting);
    if (setting.is_boolean()) take_setting<bool>(section, key, setting);
    if (setting.is_number_integer())
      take_setting<int64_t>(section, key, setting);
    else if (setting.is_number())
      take_setting<double>(section, key, setting);
  }
  section.done();
  if (is_of_texts(begun) && !is_of_texts(usual) && !section.has("interpolation"))  // a new model of texts
    settings["interpolation"] = usual_interpolation(settings["sample_size"], settings["caption_tokens"]);
  settings["model"] = is_of_texts(begun) ? "pixart" : "dit";
  try {
    return model_config_from_json(settings.dump());
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
}

template <class Config>
void read_table(ConfigTables& root, const char* name, Config& config) {
  Section section(root, name);
  settings(config, section);
  section.done();
}

void read_optimizer(ConfigTables& root, OptimizerConfig& train) {
  read_table(root, "train", train);
  require(train.steps > 0 && train.batch > 0 && train.accumulate > 0,
          "train.steps, batch and accumulate are positive");
  require(train.batch % train.accumulate == 0, "train.accumulate must divide train.batch");
  require(train.lr > 0 && train.lr < 10,
          fmt::format("train.lr must be above 0 and below 10, not {}", train.lr));
  require_share("train.beta1", train.beta1);
  require_share("train.beta2", train.beta2);
  require_share("train.beta3", train.beta3);
  require_share("train.momentum", train.momentum);
  require(train.optimizer == "adamw" || train.optimizer == "came" || train.optimizer == "muon",
          "train.optimizer is \"adamw\", \"came\" or \"muon\"");
  require_positive("train.epsilon", train.epsilon);
  require_not_negative("train.weight_decay", train.weight_decay);
  require_not_negative("train.clip", train.clip);
  require_share("train.ema", train.ema);
  require(train.warmup >= 0, fmt::format("train.warmup must be at least 0, not {}", train.warmup));
  require(train.threads >= 0 && train.threads <= 1024,
          fmt::format("train.threads must lie in 0..1024, not {}", train.threads));
  require(train.schedule == "constant" || train.schedule == "cosine",
          "train.schedule is \"constant\" or \"cosine\"");
  require(train.timesteps == "uniform" || train.timesteps == "logit_normal",
          "train.timesteps is \"uniform\" or \"logit_normal\"");
  require_positive("train.timesteps_deviation", train.timesteps_deviation);
  require(train.precision == "auto" || train.precision == "f32" || train.precision == "bf16",
          "train.precision is \"auto\", \"f32\" or \"bf16\"");
  device_from_name(train.device);  // throws
}

void read_data(ConfigTables& root, DataConfig& data) {
  read_table(root, "data", data);
  require(data.path.empty() != data.replay.empty(), "give either data.path or data.replay");
  require(!data.flip || data.replay.empty(),
          "data.flip mirrors pictures of data.path; data.replay has its own");
}

void read_text(ConfigTables& root, TrainConfig& config) {
  TextConfig& text = config.text;
  read_table(root, "text", text);
  require_share("text.dropout", text.dropout);
  require(is_of_texts(config.model) || (text.tokenizer.empty() && text.encoder.empty() && !text.tune &&
                                        config.output.sample_prompts.empty()),
          "text and output.sample_prompts are of a model of texts, and this one is of classes: set "
          "model.kind=\"pixart\", or leave them out");
  require(text.encoder.empty() || !text.tokenizer.empty(), "text.encoder needs text.tokenizer too");
  require(!text.tune || !text.encoder.empty(), "text.tune needs text.encoder, where training begins");
  require(!config.trains_text_encoder() || config.distil.teacher.empty(),
          "a teacher and a student must see the same states of a text: give text.encoder, without text.tune");
}

void read_distil(ConfigTables& root, DistilConfig& distil) {
  read_table(root, "distil", distil);
  require_not_negative("distil.noise", distil.noise);
  require_not_negative("distil.variance", distil.variance);
  require(distil.precision == "auto" || distil.precision == "f32" || distil.precision == "bf16" ||
              distil.precision == "int8",
          "distil.precision is \"auto\", \"f32\", \"bf16\" or \"int8\"");
}

void read_output(ConfigTables& root, OutputConfig& output) {
  read_table(root, "output", output);
  for (const std::string& prompt : output.sample_prompts)
    require(fault_of_text(prompt).empty(),
            fmt::format("output.sample_prompts: \"{}\" {}", printable(prompt, 60), fault_of_text(prompt)));
  require(!output.dir.empty(), "output.dir names the folder of the run");
  require(output.log_every > 0 && output.save_every > 0 && output.sample_every >= 0,
          "output.log_every and save_every are positive, sample_every is not negative");
  // What the first sheet would refuse, hours later.
  require(output.sample_steps >= 1 && output.sample_steps <= 1000, "output.sample_steps must lie in 1..1000");
  require(std::abs(output.sample_cfg) <= 1e6, "output.sample_cfg must lie in -1000000..1000000");
}

void check_tables(const toml::table& root) {
  const std::vector<std::string> tables = {"model", "data", "text", "train", "distil", "output"};
  for (const auto& [key, value] : root)
    if (std::find(tables.begin(), tables.end(), std::string(key.str())) == tables.end())
      throw UsageError(fmt::format("configuration: there is no table \"{}\"{}", key.str(),
                                   suggestion(std::string(key.str()), tables)));
}

// The model that the run's weights are of, if it starts from any.
std::optional<ModelConfig> model_to_start_from(const TrainConfig& config, bool resume) {
  const auto checkpoint = std::filesystem::path(config.output.dir) / checkpoint_name;
  if (resume && is_there(checkpoint)) return open_checkpoint(checkpoint).model;
  if (!config.train.init.empty()) return read_model_config(open_file_or_builtin(config.train.init));
  return std::nullopt;
}

// All settings of a model, so that the written configuration says them wherever they came from.
toml::table table_of(const ModelConfig& model) {
  const auto settings = settings_of(model);
  toml::table table{{"kind", is_of_texts(model) ? "pixart" : "dit"}};
  for (const auto& [key, value] : settings.items()) {
    if (value.is_string()) table.insert(key, value.get<std::string>());
    if (value.is_boolean()) table.insert(key, value.get<bool>());
    if (value.is_number_integer()) table.insert(key, value.get<int64_t>());
    if (value.is_number_float()) table.insert(key, value.get<double>());
  }
  return table;
}

// What the file or the command line says in vain is refused. Not so what the command line made idle, as a file
// may be that of several runs, nor in a run that has begun: there it is remarked on, and left out of what is
// written, so that it can be read again.
void refuse_idle_settings(ConfigTables& root, TrainConfig& config, bool resume) {
  const auto is_typed = [&](const std::string& name) { return root.typed.contains(name); };
  for (IdleSettings& idle : idle_settings(config)) {
    std::erase_if(idle.names,
                  [&](const auto& name) { return !is_typed(name) && !root.in_file.contains(name); });
    if (idle.names.empty()) continue;
    const bool may_stay = std::ranges::any_of(idle.because_of, is_typed) || idle.may_wait;
    require(resume || (may_stay && std::ranges::none_of(idle.names, is_typed)), refusal_of(idle));
    config.remarks.push_back(remark_on(idle));
    if (idle.may_wait) continue;
    for (const std::string& name : idle.names) {
      const size_t dot = name.find('.');
      root.tables.get(name.substr(0, dot))->as_table()->erase(name.substr(dot + 1));
    }
  }
}

// A linear model may have any number of heads, so that a file of the right sizes can still be of another.
std::string what_can_be_done(const Difference& other) {
  if (other.setting != "num_heads") return {};
  return fmt::format(": set model.num_heads={}, or make it anew with linnet inherit --heads {}", other.second,
                     other.first);
}

TrainConfig config_from(ConfigTables root, bool resume) {
  check_tables(root.tables);
  TrainConfig config;
  read_data(root, config.data);
  read_optimizer(root, config.train);
  read_distil(root, config.distil);
  read_output(root, config.output);
  const auto start = model_to_start_from(config, resume);
  config.model = read_model(root, start.value_or(DiTConfig()));
  read_text(root, config);
  if (start && !resume)
    if (const auto other = first_difference(config.model, *start))
      throw UsageError(fmt::format("configuration: model.{} is {}, but {} in {}{}", other->setting,
                                   other->first, other->second, config.train.init, what_can_be_done(*other)));
  refuse_idle_settings(root, config, resume);
  root.tables.insert_or_assign("model", table_of(config.model));
  std::ostringstream out;
  out << root.tables;
  config.toml = out.str();
  return config;
}

// A configuration's settings as texts, by "table.key".
using Settings = std::map<std::string, std::string>;

Settings settings_in(const std::string& text) {
  Settings settings;
  const toml::table root = parse(text, "checkpoint");
  for (const auto& [table, keys] : root) {
    if (!keys.is_table()) continue;
    for (const auto& [key, value] : *keys.as_table()) {
      std::ostringstream out;
      if (const auto* number = value.as_floating_point())
        out << fmt::format("{}", number->get());
      else
        value.visit([&](const auto& node) { out << node; });
      settings[fmt::format("{}.{}", table.str(), key.str())] = out.str();
    }
  }
  return settings;
}

std::string read_file(const std::filesystem::path& path) {
  errno = 0;
  std::ifstream file(path);
  if (!file || is_folder(path))
    throw UsageError(fmt::format("{}: this configuration cannot be read: {}", printable(path.string()),
                                 is_folder(path) ? "it is a folder" : std::strerror(errno)));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

TrainConfig parse_train_config(const std::string& text, const std::vector<std::string>& overrides) {
  return config_from(lay_together({}, parse(text, "configuration"), overrides), false);
}

TrainConfig read_train_config(const ConfigSource& source) {
  toml::table preset, file;
  if (!source.preset.empty()) preset = parse(to_toml(find_preset(source.preset)), source.preset);
  if (!source.file.empty()) file = parse(read_file(source.file), source.file.string());
  ConfigTables tables = lay_together(std::move(preset), file, source.overrides);
  if (source.file.empty()) return config_from(std::move(tables), source.resume);
  try {
    TrainConfig config = config_from(std::move(tables), source.resume);
    config.file = source.file;
    return config;
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("{}: {}", source.file.string(), error.what()));
  }
}

std::string teacher_of(const std::string& toml) {
  return parse(toml, "checkpoint")["distil"]["teacher"].value_or(std::string());
}

std::vector<std::string> changed_settings(const std::string& before, const std::string& now) {
  const Settings old = settings_in(before), current = settings_in(now);
  std::vector<std::string> changes;
  const auto value_in = [](const Settings& settings, const std::string& name) {
    const auto found = settings.find(name);
    return found == settings.end() ? "not said" : found->second;
  };
  Settings both = old;
  both.insert(current.begin(), current.end());
  // More steps are no other run, unless the rate falls to the last of them.
  const bool other_rates = value_in(current, "train.schedule").find("cosine") != std::string::npos;
  for (const auto& [name, value] : both)
    if (value_in(old, name) != value_in(current, name) && name != "output.dir" &&
        (name != "train.steps" || other_rates))
      changes.push_back(
          fmt::format("{} was {}, is now {}", name, value_in(old, name), value_in(current, name)));
  return changes;
}

DType training_product_dtype(const OptimizerConfig& config) {
  const DType dtype = ops::product_dtype_from_name(config.precision, device_from_name(config.device));
  return dtype == DType::f16 ? DType::f32 : dtype;  // an older GPU's fastest, in which gradients would vanish
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
