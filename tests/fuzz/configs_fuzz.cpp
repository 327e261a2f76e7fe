// Any text as each of the JSON files that lie beside weights, and as a model's own configuration: refused with
// a sentence, or read as what can be, and is the same when it is written and read again.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "models/dit.h"
#include "models/pixart.h"
#include "models/t5.h"
#include "models/vae.h"
#include "store/dit_file.h"
#include "store/folder_config.h"
#include "store/hub_folder.h"
#include "store/metadata.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"
#include "store/vae_file.h"

namespace {

using namespace linnet;

// What a configuration goes with: the names and shapes of a small model, without values.
template <class Model, class Config>
Weights weights_like(const Config& config) {
  Model model(config);
  Weights weights("input");
  for (const auto& [name, parameter] : nn::learned_parameters(model))
    weights.add({name, "f32", DType::f32, parameter->shape, {}});
  return weights;
}

DiTConfig small_dit() {
  DiTConfig config;
  config.hidden_size = 16;
  config.depth = 1;
  config.num_heads = 2;
  return config;
}

PixArtConfig small_pixart() {
  PixArtConfig config;
  config.hidden_size = config.caption_channels = 16;
  config.depth = 1;
  config.num_heads = config.num_cross_heads = 2;
  config.null_caption = false;
  return config;
}

T5Config small_t5() {
  T5Config config;
  config.vocabulary = config.width = config.hidden = 16;
  config.depth = config.heads = 1;
  config.head_size = 8;
  return config;
}

VaeConfig small_vae() {
  VaeConfig config;
  config.block_out_channels = {32, 32};
  return config;
}

template <class Read>
void try_to(Read read) {
  try {
    read();
  } catch (const Error& error) {
    for (const char c : std::string_view(error.what()))
      if (static_cast<uint8_t>(c) < 0x20) std::abort();
  }
}

void must(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Weights dit = weights_like<DiT>(small_dit()), pixart = weights_like<PixArt>(small_pixart()),
                       t5 = weights_like<T5Encoder>(small_t5()), vae = weights_like<Vae>(small_vae());
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto with = [&](Weights weights, const char* key) {
    weights.set_metadata(key, text);
    return weights;
  };
  for (const char* key : {folder_config_key, folder_pipeline_key, folder_scheduler_key, config_key}) {
    try_to([&] { read_dit_config(with(dit, key)).validate(); });
    try_to([&] { read_pixart_config(with(pixart, key)).validate(); });
  }
  try_to([&] { (void)read_class_names(with(dit, classes_key), 4); });
  try_to([&] { (void)note_on_scheduler(with(pixart, folder_scheduler_key)); });
  try_to([&] { read_t5_config(with(t5, folder_config_key)).validate(); });
  try_to([&] {
    const VaeConfig config = read_vae_config(with(vae, folder_config_key));
    must(vae_config_from_json(to_json(config)) == config);
  });
  try_to([&] {
    const DiTConfig config = dit_config_from_json(text);
    must(dit_config_from_json(to_json(config)) == config);
  });
  try_to([&] {
    const PixArtConfig config = pixart_config_from_json(text);
    must(pixart_config_from_json(to_json(config)) == config);
  });
  return 0;
}
