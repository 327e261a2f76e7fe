// Models on disk. Linnet's own are safetensors files whose metadata "linnet.config" holds the configuration as
// JSON; others' are understood by names and shapes (store/dit_weights.h).
#pragma once

#include <filesystem>
#include <map>
#include <memory>

#include "models/dit.h"
#include "store/weights.h"

namespace linnet {

/// A model with its weights mapped from the file.
struct LoadedModel {
  std::unique_ptr<DiT> model;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> class_names;  ///< by index; empty if the file names none
};
/// Throws Error naming file and tensor when one is missing, left over, or of another shape.
LoadedModel load_model(const Weights& weights);
LoadedModel load_model(const std::filesystem::path& path, Choice choice = Choice::ema);

/// One of the two sets of weights in Linnet's own training checkpoint: of the transformer, and of a text
/// encoder that is trained along.
Weights part_of_checkpoint(const Weights& checkpoint, Choice choice);

/// The weights of a file's transformer, of whichever kind, by the names that they have there: of Linnet's own
/// model files and training checkpoints, and of others' (model_weights).
Weights transformer_weights(const Weights& file, Choice choice);

/// The model among a file's weights, by the original's names and without the optimiser's and others': what
/// load_model takes.
Weights find_model_weights(const Weights& file, Choice choice);
Weights open_model_weights(const std::filesystem::path& path, Choice choice = Choice::ema);

/// The configuration alone: the one that the file states, else what names and shapes tell.
DiTConfig read_model_config(const Weights& weights);
DiTConfig read_model_config(const std::filesystem::path& path);

/// The names in the metadata "linnet.classes"; empty if there are none. Throws Error unless there are as many
/// as the model has classes.
std::vector<std::string> read_class_names(const Weights& weights, int64_t num_classes);
inline std::vector<std::string> read_class_names(const Weights& weights, const DiTConfig& config) {
  return read_class_names(weights, config.num_classes);
}

/// Checks without reading a number that the weights are those of a list's parameters. Throws Error naming file
/// and tensor when one is missing, left over, or of another shape or type.
void check_parameters(const nn::ParameterList& parameters, const Weights& weights);
/// Gives every learned parameter of a list the tensor of its name; checks first.
void read_parameters(const nn::ParameterList& parameters, const Weights& weights);
/// The parameters' values by name, in dtype, or in 8 bits with their scales where they are so. Throws Error
/// when one has none. The parameters must outlive what is returned.
std::vector<TensorToWrite> values_of(const nn::ParameterList& parameters, DType dtype);

/// Sixteen hexadecimal digits that say which weights a model has: a function of the tensors' names,
/// types and bytes, not of metadata or of the order in the file. Tells files apart; no defence against forgery.
std::string fingerprint(const nn::ParameterList& parameters);
inline std::string fingerprint(DiT& model) { return fingerprint(nn::learned_parameters(model)); }
/// The same of a few blocks of every tensor, the first and the last among them, and of all scales: of weights
/// that are too many to be read for it.
std::string quick_fingerprint(const nn::ParameterList& parameters);
/// The same of one tensor's values.
std::string fingerprint(const Tensor& tensor);

/// Metadata keys of Linnet's own files: a model's configuration, and that of a training checkpoint.
inline constexpr const char *config_key = "linnet.config", *checkpoint_key = "linnet.checkpoint";
/// Of what training made, how many steps it had done; of a checkpoint, the run's whole configuration as TOML.
inline constexpr const char *step_key = "linnet.step", *training_key = "linnet.train";
/// How many pictures a run's data set had, or statistics are of.
inline constexpr const char* pictures_key = "linnet.pictures";
/// In a training checkpoint, what the names of a text encoder that is trained along begin with.
inline constexpr const char* text_encoder_prefix = "text_encoder.";

/// Writes atomically and tensor by tensor; weights in dtype (f32, bf16 or f16; in 8 bits what is), positions
/// left out if with_positions is false. `extra` joins the metadata.
void save_model(const std::filesystem::path& path, DiT& model, DType dtype,
                const std::map<std::string, std::string>& extra = {}, bool with_positions = true);

}  // namespace linnet
