#include "store/transformer_file.h"

#include "store/dit_file.h"
#include "store/metadata.h"
#include "store/pixart_file.h"

namespace linnet {

bool holds_pixart(const Weights& file, Choice choice) {
  return looks_like_pixart(transformer_weights(file, choice));
}

bool holds_dit(const Weights& file, Choice choice) {
  if (holds_pixart(file, choice)) return false;
  const Weights model = find_dit_weights(file, choice);
  return model.metadata().contains(config_key) || looks_like_dit(model);
}

ModelConfig read_model_config(const Weights& file, Choice choice) {
  if (holds_pixart(file, choice)) return read_pixart_config(find_pixart_weights(file, choice));
  return read_dit_config(find_dit_weights(file, choice));
}

}  // namespace linnet
