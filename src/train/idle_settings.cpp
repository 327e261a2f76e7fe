#include "train/idle_settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace linnet {
namespace {

using Idle = std::vector<IdleSettings>;

// What decides whether a model is of classes or of texts, and more.
std::vector<std::string> kind_and(std::vector<std::string> more) {
  more.insert(more.end(), {"model.kind", "model.preset", "train.init"});
  return more;
}

void add_texts(Idle& idle, const TrainConfig& config) {
  const std::vector<std::string> new_encoder = {"text.depth", "text.heads", "text.hidden"};
  if (!is_of_texts(config.model)) {
    idle.push_back({{"text.dropout", "text.depth", "text.heads", "text.hidden"},
                    kind_and({}),
                    "the model is one of classes",
                    "set model.kind=\"pixart\""});
  } else if (!config.text.encoder.empty()) {
    idle.push_back({new_encoder,
                    {"text.encoder"},
                    "text.encoder names an encoder that has its size",
                    "leave out text.encoder for a new one"});
  } else if (config.text.tokenizer.empty()) {
    idle.push_back({new_encoder,
                    {"text.tokenizer"},
                    "without text.tokenizer no encoder is trained along",
                    "give text.tokenizer, if data.path holds pictures"});
  }
}

void add_optimizer(Idle& idle, const OptimizerConfig& train) {
  const auto add = [&](const char* name, const char* why, const char* instead) {
    idle.push_back({{name}, {"train.optimizer"}, why, instead});
  };
  if (train.optimizer != "muon")
    add("train.momentum", "train.optimizer is not \"muon\"", "set train.optimizer=\"muon\"");
  if (train.optimizer != "came")
    add("train.beta3", "train.optimizer is not \"came\"", "set train.optimizer=\"came\"");
  if (train.optimizer == "came")
    add("train.epsilon", "train.optimizer is \"came\"", "set train.optimizer=\"adamw\"");
  if (train.timesteps == "uniform")
    idle.push_back({{"train.timesteps_mean", "train.timesteps_deviation"},
                    {"train.timesteps"},
                    "train.timesteps is \"uniform\"",
                    "set train.timesteps=\"logit_normal\""});
}

void add_teacher(Idle& idle, const TrainConfig& config) {
  if (config.distil.teacher.empty())
    idle.push_back({{"distil.noise", "distil.variance", "distil.precision"},
                    {"distil.teacher"},
                    "there is no distil.teacher",
                    "name one (--teacher)",
                    true});
  else if (!learns_variance(config.model))
    idle.push_back({{"distil.variance"},
                    {"model.learn_sigma", "model.preset", "train.init"},
                    "the model predicts no variance",
                    "set model.learn_sigma=true",
                    true});
}

// Of latents nothing is painted in any case, which the run says as it begins.
void add_sheets(Idle& idle, const TrainConfig& config) {
  const OutputConfig& output = config.output;
  if (output.sample_every == 0 && !output.sample_prompts.empty())
    idle.push_back({{"output.sample_prompts"},
                    {"output.sample_every"},
                    "output.sample_every is 0, so that no sheet is painted",
                    "set output.sample_every"});
  if (output.sample_every > 0 && output.sample_prompts.empty() && is_of_texts(config.model) &&
      picture_shape(config.model)[0] == 3)
    idle.push_back({{"output.sample_every"},
                    kind_and({"output.sample_prompts"}),
                    "a sheet of a model of texts shows output.sample_prompts, and there are none",
                    "give output.sample_prompts"});
}

}  // namespace

std::vector<IdleSettings> idle_settings(const TrainConfig& config) {
  Idle idle;
  add_texts(idle, config);
  add_optimizer(idle, config.train);
  add_teacher(idle, config);
  add_sheets(idle, config);
  return idle;
}

std::string refusal_of(const IdleSettings& idle) {
  return fmt::format("nothing would come of {}, as {}: {}, or leave {} out", fmt::join(idle.names, ", "),
                     idle.why, idle.instead, idle.names.size() == 1 ? "it" : "them");
}

std::string remark_on(const IdleSettings& idle) {
  return fmt::format("nothing comes of {}, as {}", fmt::join(idle.names, ", "), idle.why);
}

}  // namespace linnet
