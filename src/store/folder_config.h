// What the JSON files beside downloaded weights say (hub_folder.h).
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <string_view>

#include "diffusion/prediction.h"
#include "store/weights.h"

namespace linnet {

/// diffusers' config.json. What it does not mention, or says null of, is left as it is; what cannot be is an
/// Error.
class FolderConfig {
 public:
  explicit FolderConfig(const std::string& text);

  void take(const char* key, int64_t& value) const;
  void take(const char* key, double& value) const;
  /// Throws Error if it says something else.
  void expect(const char* key, std::string_view value) const;

 private:
  /// Null if there is nothing.
  const nlohmann::json* find(const char* key) const;

  nlohmann::json json_;
};

/// What the pipeline's scheduler takes the model's prediction for; none where there is no scheduler. Throws
/// Error on one that Linnet's samplers do not stand for: of another noise schedule, or of few steps.
std::optional<Prediction> prediction_of_scheduler(const Weights& weights);

/// What the pipeline's scheduler asks for that Linnet's samplers do not, by which diffusers paints other
/// pictures with it: "asks for use_karras_sigmas, which is not followed". Empty if there is nothing.
std::string note_on_scheduler(const Weights& weights);

}  // namespace linnet
