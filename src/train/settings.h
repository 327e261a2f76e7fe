// Every setting of a training run, once: its key, what it is read into, and what it means in a line. A function
// settings(config, visitor) for each table calls
//   visitor.setting("batch", config.batch, "pictures a step")
// and is walked to read a configuration and to list what there is (linnet train --settings). Those of a model
// are read by the names that they have in its JSON; their meanings stand in settings.cpp.
#pragma once

#include <string>
#include <vector>

#include "train/config.h"

namespace linnet {

template <class Visitor>
void settings(DataConfig& data, Visitor& visitor) {
  visitor.setting("path", data.path, "folder of pictures, by class or with captions, or of latents");
  visitor.setting("replay", data.replay, "or: batches in one file (safetensors with x0, t, noise, y)");
  visitor.setting("flip", data.flip, "mirror every other picture at random");
}

template <class Visitor>
void settings(TextConfig& text, Visitor& visitor) {
  visitor.setting("dropout", text.dropout, "how often a text is dropped, below 1: \"\" stands in its place");
  visitor.setting("tokenizer", text.tokenizer, "SentencePiece model, or its folder; for pictures, not latents");
  visitor.setting("encoder", text.encoder, "T5 encoder, which is frozen; \"\": one is trained along");
  visitor.setting("tune", text.tune, "text.encoder is where one that is trained along begins");
  visitor.setting("depth", text.depth, "blocks of a new encoder, as wide as model.caption_channels");
  visitor.setting("heads", text.heads, "its heads; they divide its width");
  visitor.setting("hidden", text.hidden, "width of its MLPs");
}

template <class Visitor>
void settings(OptimizerConfig& train, Visitor& visitor) {
  visitor.setting("steps", train.steps, "steps of the whole run");
  visitor.setting("batch", train.batch, "pictures a step, of all processes together");
  visitor.setting("accumulate", train.accumulate, "parts in which a batch is worked on, which saves memory");
  visitor.setting("init", train.init, "weights to start from (--init), or \"builtin\"; \"\": drawn ones");
  visitor.setting("optimizer", train.optimizer, "adamw, came, or muon (for the blocks' matrices, else adamw)");
  visitor.setting("lr", train.lr, "learning rate, below 10");
  visitor.setting("schedule", train.schedule, "constant, or cosine: the rate falls to 0 at the last step");
  visitor.setting("warmup", train.warmup, "steps in which the rate rises to lr");
  visitor.setting("weight_decay", train.weight_decay, "decoupled, as AdamW's");
  visitor.setting("beta1", train.beta1, "of the moving mean of gradients, below 1");
  visitor.setting("beta2", train.beta2, "of their squares', below 1");
  visitor.setting("beta3", train.beta3, "of came's third mean, below 1");
  visitor.setting("epsilon", train.epsilon, "of adamw, beside the squares' root");
  visitor.setting("momentum", train.momentum, "of muon, below 1");
  visitor.setting("clip", train.clip, "largest norm of the gradient; 0: no limit");
  visitor.setting("ema", train.ema, "decay of the averaged weights, below 1");
  visitor.setting("timesteps", train.timesteps, "uniform, or logit_normal: 1000·σ(N(mean, deviation))");
  visitor.setting("timesteps_mean", train.timesteps_mean, "of logit_normal; above 0: more at high noise");
  visitor.setting("timesteps_deviation", train.timesteps_deviation, "of logit_normal");
  visitor.setting("precision", train.precision, "of products: bf16, f32, or auto: the device's fastest");
  visitor.setting("device", train.device, "cpu, cuda, cuda:1 (--device)");
  visitor.setting("checkpointing", train.checkpointing, "blocks computed again for gradients: saves memory");
  visitor.setting("seed", train.seed, "of drawn weights and of all that batches draw");
  visitor.setting("threads", train.threads, "0: all");
}

template <class Visitor>
void settings(DistilConfig& distil, Visitor& visitor) {
  visitor.setting("teacher", distil.teacher, "weights of the teacher (--teacher), or \"builtin\"; \"\": none");
  visitor.setting("noise", distil.noise, "weight of what the predicted noise differs by (the paper's λ₁)");
  visitor.setting("variance", distil.variance, "weight of what the variance differs by (λ₂)");
  visitor.setting("precision", distil.precision, "of the teacher's products: f32, bf16, int8 or auto");
}

template <class Visitor>
void settings(OutputConfig& output, Visitor& visitor) {
  visitor.setting("dir", output.dir, "folder of the run");
  visitor.setting("log_every", output.log_every, "steps between two lines of metrics.jsonl");
  visitor.setting("save_every", output.save_every, "steps between two checkpoints");
  visitor.setting("sample_every", output.sample_every, "steps between two sheets, if of pixels; 0: none");
  visitor.setting("sample_steps", output.sample_steps, "steps in which a sheet is painted, 1 to 1000");
  visitor.setting("sample_cfg", output.sample_cfg, "guidance scale of a sheet");
  visitor.setting("sample_prompts", output.sample_prompts, "texts to paint on it, for a model of texts");
}

/// A setting as it is listed.
struct Setting {
  std::string table, key;  ///< "train", "batch"
  std::string usual;       ///< what it is unless it is said, as TOML
  std::string meaning;
  std::string group;  ///< heading under which it stands: "[train]", "[model] of texts"
};

/// All that a configuration may say, table by table.
std::vector<Setting> list_settings();

/// The same for people to read, in 100 columns.
std::string describe_settings();

}  // namespace linnet
