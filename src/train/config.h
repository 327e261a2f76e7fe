// Everything a training run can be told: a preset, over it a TOML file, over both key=value. Unknown keys are
// refused with the nearest known one, so that a misspelt setting never passes silently.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "models/model_config.h"

namespace linnet {

struct DataConfig {
  /// Folder of PNG, JPEG or WebP pictures in class folders or with captions, or of latents (linnet encode).
  std::string path;
  std::string replay;  ///< or: a safetensors file with x0, t, noise, y (steps, batch, …), used in its order
  bool flip = false;   ///< mirror every other picture at random
};

/// How a model is told the texts of pictures in a folder; latents have their texts encoded beside them.
struct TextConfig {
  std::string tokenizer;  ///< SentencePiece model, or the folder that holds it
  std::string encoder;    ///< T5 encoder whose states the model sees; empty: one that is trained along
  bool tune = false;      ///< encoder is not frozen, but where one that is trained along begins
  int64_t depth = 2, heads = 4, hidden = 256;  ///< of that one; its width is model.caption_channels
  double dropout = 0.1;                        ///< how often a text is dropped: "" stands in its place
};

/// LiT's hybrid distillation.
struct DistilConfig {
  std::string teacher;                  ///< weights of either kind of model, or "builtin"; empty: none
  double noise = 0.5, variance = 0.05;  ///< λ₁, λ₂
  std::string precision = "auto";       ///< of the teacher's products; as train.precision, or int8
};

struct OptimizerConfig {
  int64_t steps = 400000, batch = 256;
  int64_t accumulate = 1;  ///< the batch is worked on in this many parts
  /// Or "came" (ops/came.h), which has beta3 and no epsilon, or "muon" (ops/muon.h) for the blocks' matrices,
  /// with AdamW for the rest.
  std::string optimizer = "adamw";
  double lr = 1e-4, weight_decay = 0, beta1 = 0.9, beta2 = 0.999, beta3 = 0.9999, epsilon = 1e-8,
         momentum = 0.95;
  std::string schedule = "constant";  ///< or "cosine": to what would be zero a step after the last
  int64_t warmup = 0;
  double clip = 0;  ///< largest norm of the gradient; 0: no limit
  double ema = 0.9999;
  std::string timesteps = "uniform";  ///< or "logit_normal": 1000·σ(N(timesteps_mean, timesteps_deviation)),
                                      ///< which spends more on some noise levels (Esser et al. 2024)
  double timesteps_mean = 0, timesteps_deviation = 1;
  std::string precision = "auto";  ///< products in bf16, f32, or what the device does fastest
  std::string device = "cpu";      ///< or "cuda", "cuda:1"
  bool checkpointing = false;
  std::string init;  ///< weights to start from (`linnet inherit` makes such), or "builtin"
  int64_t seed = 0;
  int64_t threads = 0;  ///< 0: all
};

struct OutputConfig {
  std::string dir = "runs/linnet";
  int64_t log_every = 10, save_every = 1000;
  int64_t sample_every = 0;  ///< 0: never
  int64_t sample_steps = 30;
  double sample_cfg = 2.0;
  std::vector<std::string> sample_prompts;  ///< of a model of texts
};

struct TrainConfig {
  ModelConfig model;
  DataConfig data;
  TextConfig text;
  OptimizerConfig train;
  DistilConfig distil;
  OutputConfig output;
  std::vector<std::string> remarks;  ///< on settings that do nothing (train/idle_settings.h)
  std::string toml;                  ///< the whole configuration as TOML, overrides included
  std::filesystem::path file;        ///< what it was read from, if from a file

  const DiTConfig& of_classes() const { return std::get<DiTConfig>(model); }
  const PixArtConfig& of_texts() const { return std::get<PixArtConfig>(model); }
  bool trains_text_encoder() const {
    return is_of_texts(model) && !text.tokenizer.empty() && (text.encoder.empty() || text.tune);
  }
  bool has_frozen_text_encoder() const { return is_of_texts(model) && !text.encoder.empty() && !text.tune; }
};

/// Where settings come from; what stands later in this list overrides what stands earlier.
struct ConfigSource {
  std::string preset;                  ///< its name (train/presets.h); empty: none
  std::filesystem::path file;          ///< TOML; empty: none
  std::vector<std::string> overrides;  ///< "table.key=value"
  bool resume = false;                 ///< the run is to go on from its checkpoint
};

/// Settings of the model that are not said are those of the weights that training starts from: of the run's
/// checkpoint on resuming, else of train.init, with which those that are said must agree. Throws UsageError
/// naming file, line or key, and Error when those weights cannot be read.
TrainConfig read_train_config(const ConfigSource& source);
TrainConfig parse_train_config(const std::string& toml, const std::vector<std::string>& overrides);

/// The teacher of a run, as the configuration that its checkpoint keeps says; empty: none.
std::string teacher_of(const std::string& toml);
/// What differs in two configurations of a run, but for where it lies and how far it goes: "train.batch was 64,
/// is now 32".
std::vector<std::string> changed_settings(const std::string& before, const std::string& now);

/// The type that train.precision means on train.device.
DType training_product_dtype(const OptimizerConfig& config);

/// The learning rate of a step, counted from 0.
double learning_rate(const OptimizerConfig& config, int64_t step);

}  // namespace linnet
