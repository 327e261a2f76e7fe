#include "train/open_model.h"

#include "builtin/builtin_model.h"

namespace linnet {

ModelConfig new_model(bool of_texts) {
  if (!of_texts) return DiTConfig();
  PixArtConfig config;
  // Training here would not teach it: a dropped text's states are those of "".
  config.null_caption = false;
  return config;
}

Weights open_file_or_builtin(const std::string& model) {
  if (model == "builtin-text") return Weights::of(builtin_transformer());
  return model == "builtin" ? Weights::of(builtin_model()) : Weights::open(model);
}

}  // namespace linnet
