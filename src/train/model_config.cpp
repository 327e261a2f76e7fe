#include "train/model_config.h"

#include <nlohmann/json.hpp>

#include "builtin/builtin_model.h"
#include "store/model_file.h"
#include "store/pixart_file.h"

namespace linnet {

ModelConfig new_model(bool of_texts) {
  if (!of_texts) return DiTConfig();
  PixArtConfig config;
  // Training here would not teach it: a dropped text's states are those of "".
  config.null_caption = false;
  return config;
}

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

Weights open_file_or_builtin(const std::string& model) {
  if (model == "builtin-text") return Weights::of(builtin_transformer());
  return model == "builtin" ? Weights::of(builtin_model()) : Weights::open(model);
}

ModelConfig read_model_config_of_either(const Weights& file) {
  if (looks_like_pixart(transformer_weights(file, Choice::ema)))
    return read_pixart_config(find_pixart_weights(file));
  return read_model_config(find_model_weights(file, Choice::ema));
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
