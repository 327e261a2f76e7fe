#include "models/model_config.h"

#include <nlohmann/json.hpp>

namespace linnet {

std::string to_json(const ModelConfig& model) {
  return std::visit([](const auto& config) { return to_json(config); }, model);
}

std::string to_full_json(const ModelConfig& model) {
  return std::visit([](const auto& config) { return to_full_json(config); }, model);
}

ModelConfig model_config_from_json(std::string_view text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  check(json.is_object(), "the model's configuration is no JSON object");
  const auto kind = json.find("model");  // not copied: that recurses, as deeply as a stranger wants
  if (kind != json.end() && *kind == "pixart") return pixart_config_from_json(text);
  return dit_config_from_json(text);
}

ModelConfig model_preset(std::string_view name) {
  if (const auto text = pixart_preset(name)) return *text;
  return dit_preset(name);
}

Shape picture_shape(const ModelConfig& model) {
  if (const auto* text = std::get_if<PixArtConfig>(&model))
    return {text->in_channels, text->sample_size, text->sample_size};
  const auto& classes = std::get<DiTConfig>(model);
  return {classes.in_channels, classes.input_size, classes.input_size};
}

Prediction prediction_of(const ModelConfig& model) {
  return std::visit([](const auto& config) { return config.prediction; }, model);
}

bool learns_variance(const ModelConfig& model) {
  return std::visit([](const auto& config) { return config.learn_sigma; }, model);
}

std::optional<Difference> first_difference(const ModelConfig& a, const ModelConfig& b) {
  const auto kind = [](const ModelConfig& model) { return is_of_texts(model) ? "\"pixart\"" : "\"dit\""; };
  if (is_of_texts(a) != is_of_texts(b)) return Difference{"kind", kind(a), kind(b)};
  auto first = nlohmann::ordered_json::parse(to_full_json(a));
  auto second = nlohmann::ordered_json::parse(to_full_json(b));
  const bool learns_positions = nn::is_focused(std::visit([](const auto& config) { return config.mixer; }, a));
  const auto only_size = [&](const std::string& setting) {
    return is_of_texts(a) && !learns_positions && (setting == "sample_size" || setting == "interpolation");
  };
  const auto only_rate = [&](const std::string& setting) {
    return setting == "class_dropout" && (first[setting] > 0) == (second[setting] > 0);
  };
  for (const auto& [setting, value] : first.items())
    if (value != second[setting] && !only_rate(setting) && !only_size(setting))
      return Difference{setting, value.dump(), second[setting].dump()};
  return std::nullopt;
}

}  // namespace linnet
