// The models of the papers as configurations: what `linnet train --preset` starts from. Sizes and heads are
// those of model_preset(). Of classes, the recipe is DiT's (arXiv 2212.09748), which LiT (arXiv 2501.12976)
// keeps, with LiT's weights of distillation and numbers of steps; of texts, it is the one with which LiT learns
// from PixArt-Σ.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace linnet {

struct Preset {
  std::string_view name;   ///< "lit-xl-2-imagenet256"
  std::string_view model;  ///< "LiT-XL/2", as model_preset() takes it
  int64_t pixels;          ///< side of the picture; the model works on latents of an eighth of it
  int64_t steps, batch;
  double noise, variance;     ///< λ₁, λ₂; 0: not distilled
  std::string_view ancestor;  ///< whose weights it inherits; empty: none
  std::string_view teacher;   ///< whom it learns from; empty: nobody
  std::string_view source;    ///< the paper and where it reports this model

  bool of_texts = false;

  /// Constant.
  const char* lr() const { return of_texts ? "2e-5" : "1e-4"; }
};

std::span<const Preset> presets();
/// Throws UsageError with the nearest name, or all.
const Preset& find_preset(std::string_view name);

/// The configuration, with comments; it lacks the data, and where ancestor and teacher lie.
std::string to_toml(const Preset& preset);

}  // namespace linnet
