#include "store/folder_config.h"

#include <cmath>

#include "core/printable.h"

namespace linnet {
namespace {

// The number that JSON has not which a text begins with; empty if it begins with none.
std::string_view python_number_at(std::string_view text) {
  for (const std::string_view word : {"-Infinity", "Infinity", "NaN"})
    if (text.starts_with(word)) return word;
  return {};
}

// Python writes numbers that JSON has not, as diffusers' schedulers hold: outside texts they become null.
nlohmann::json parse_of_python(std::string_view text) {
  std::string plain;
  bool quoted = false;
  for (size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at), number = quoted ? "" : python_number_at(rest);
    const size_t escaped = quoted && rest[0] == '\\' ? 2 : 1;
    if (rest[0] == '"') quoted = !quoted;
    plain += number.empty() ? rest.substr(0, escaped) : "null";
    at += number.empty() ? escaped : number.size();
  }
  return nlohmann::json::parse(plain, nullptr, false);
}

Prediction prediction_called(const std::string& name) {
  if (name == "epsilon") return Prediction::epsilon;
  if (name == "v_prediction") return Prediction::v;
  if (name == "sample") return Prediction::x0;
  fail("the pipeline's scheduler takes the prediction \"{}\", which Linnet does not know", printable(name));
}

}  // namespace

FolderConfig::FolderConfig(const std::string& text) : json_(nlohmann::json::parse(text, nullptr, false)) {
  check(json_.is_object(), "config.json is no JSON object");
}

const nlohmann::json* FolderConfig::find(const char* key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

void FolderConfig::take(const char* key, int64_t& value) const {
  double number = static_cast<double>(value);
  take(key, number);
  check(std::abs(number) < 1e15 && number == std::floor(number), "config.json: {} is no whole number", key);
  value = static_cast<int64_t>(number);
}

void FolderConfig::take(const char* key, double& value) const {
  const nlohmann::json* const found = find(key);
  check(!found || found->is_number(), "config.json: {} is no number", key);
  if (found) value = found->get<double>();
}

void FolderConfig::expect(const char* key, std::string_view value) const {
  const nlohmann::json* const found = find(key);
  if (!found || *found == value) return;
  // Written out is only what cannot nest: that would recurse, as deeply as a stranger wants.
  const std::string is =
      found->is_string() ? printable(found->dump()) : fmt::format("of type {}", found->type_name());
  fail("config.json: {} is {}, and only \"{}\" is known here", key, is, value);
}

std::optional<Prediction> prediction_of_scheduler(const Weights& weights) {
  const auto stated = weights.metadata().find(folder_scheduler_key);
  if (stated == weights.metadata().end()) return std::nullopt;
  const nlohmann::json json = parse_of_python(stated->second);
  check(json.is_object(), "the pipeline's scheduler_config.json is no JSON object");
  const auto text = [&](const char* key, const char* otherwise) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string(otherwise);
  };
  const auto is_near = [&](const char* key, double usual) {
    const auto found = json.find(key);
    return found == json.end() || !found->is_number() || std::abs(found->get<double>() - usual) < 1e-3 * usual;
  };
  const std::string name = text("_class_name", "");
  check(name.find("LCM") == std::string::npos && name.find("FlowMatch") == std::string::npos,
        "the pipeline is made for {}, for which Linnet has no sampler", printable(name));
  const auto is_without = [&](const char* key) {
    const auto found = json.find(key);
    return found == json.end() || found->is_null() || *found == false;
  };
  check(text("beta_schedule", "linear") == "linear" && is_near("beta_start", 1e-4) &&
            is_near("beta_end", 0.02) && is_near("num_train_timesteps", 1000) && is_without("trained_betas") &&
            is_without("rescale_betas_zero_snr"),
        "the pipeline's scheduler has another noise schedule than the linear one of 1000 steps from 0.0001 to "
        "0.02");
  return prediction_called(text("prediction_type", "epsilon"));
}

std::string note_on_scheduler(const Weights& weights) {
  // As dpm++ is here. (What diffusers does in its last step, euler_at_final and lower_order_final, is of no
  // matter where that leads to no noise.)
  static const nlohmann::json followed = {{"timestep_spacing", "linspace"},  {"algorithm_type", "dpmsolver++"},
                                          {"solver_type", "midpoint"},       {"solver_order", 2},
                                          {"final_sigmas_type", "zero"},     {"use_karras_sigmas", false},
                                          {"use_exponential_sigmas", false}, {"use_beta_sigmas", false},
                                          {"use_lu_lambdas", false},         {"thresholding", false}};
  const auto stated = weights.metadata().find(folder_scheduler_key);
  if (stated == weights.metadata().end()) return {};
  const nlohmann::json json = parse_of_python(stated->second);
  if (!json.is_object()) return {};
  std::vector<std::string> others;
  for (const auto& [key, value] : followed.items()) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null() || *found == value) continue;
    others.push_back(*found == true           ? key
                     : found->is_structured() ? key + " of its own"
                                              : fmt::format("{} {}", key, printable(found->dump())));
  }
  return others.empty() ? "" : fmt::format("asks for {}, which is not followed", fmt::join(others, ", "));
}

}  // namespace linnet
