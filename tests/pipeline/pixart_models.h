// Small text-to-image transformers for tests: those that diffusers and PyTorch have computed, and one to draw.
#pragma once

#include <filesystem>
#include <fstream>

#include "io/safetensors.h"
#include "models/pixart.h"

namespace linnet::test {

inline const std::filesystem::path dumps = LINNET_TEST_DATA "/reference";

inline std::filesystem::path weights_of(const std::string& name) {
  return dumps / ("pixart_" + name + ".model.safetensors");
}

// The folder that diffusers would write.
inline void make_folder(const std::filesystem::path& folder, const std::string& name) {
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(weights_of(name), folder / "diffusion_pytorch_model.safetensors");
  std::ofstream(folder / "config.json") << SafetensorsFile::open(weights_of(name)).metadata().at("config");
}

inline PixArtConfig small_config() {
  PixArtConfig config;
  config.sample_size = 8;
  config.hidden_size = 24;
  config.depth = 2;
  config.num_heads = 2;
  config.num_cross_heads = 3;
  config.caption_channels = 12;
  config.caption_tokens = 5;
  config.micro_conditions = true;
  config.null_caption = false;
  return config;
}

}  // namespace linnet::test
