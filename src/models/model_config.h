// The configuration of a diffusion transformer, whichever it is.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "models/dit.h"
#include "models/pixart.h"

namespace linnet {

/// A model of classes, or of texts.
using ModelConfig = std::variant<DiTConfig, PixArtConfig>;

inline bool is_of_texts(const ModelConfig& model) { return std::holds_alternative<PixArtConfig>(model); }

std::string to_json(const ModelConfig& model);
std::string to_full_json(const ModelConfig& model);
/// Throws Error on anything that is not a valid configuration of either kind.
ModelConfig model_config_from_json(std::string_view text);

/// A published model, by its name: "LiT-XL/2", "LiT-T2I-XL/2". Throws UsageError listing the known names.
ModelConfig model_preset(std::string_view name);

/// (channels, height, width) of what it is trained on.
Shape picture_shape(const ModelConfig& model);
Prediction prediction_of(const ModelConfig& model);
bool learns_variance(const ModelConfig& model);

/// The first setting by which the weights of one model do not fit another, and its two values as JSON. How
/// often classes are dropped is no such setting, only whether there is a row for "no class"; nor is the size of
/// pictures that a model of texts was made for, as its positions are computed.
struct Difference {
  std::string setting, first, second;
};
std::optional<Difference> first_difference(const ModelConfig& a, const ModelConfig& b);

}  // namespace linnet
