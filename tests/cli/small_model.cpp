#include "cli/small_model.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "io/shapes.h"
#include "store/dit_file.h"
#include "support/inception_weights.h"

namespace linnet::test {

DiTConfig small_config() {
  DiTConfig config;
  config.input_size = 16;
  config.patch_size = 4;
  config.in_channels = 3;
  config.hidden_size = 24;
  config.depth = 2;
  config.num_heads = 2;
  config.num_classes = shapes_class_count;
  config.mixer = nn::Mixer::lit;
  return config;
}

std::string write_small_model(const std::filesystem::path& path, const DiTConfig& config, bool class_names) {
  DiT model(config);
  draw_all(model);
  std::map<std::string, std::string> metadata;
  const auto names = linnet::class_names();
  if (class_names)
    metadata["linnet.classes"] = nlohmann::json(std::vector<std::string>(names.begin(), names.end())).dump();
  save_dit(path, model, DType::f32, metadata);
  return path.string();
}

void copy_model(const std::string& dump, const std::filesystem::path& folder, const std::string& file) {
  const std::string weights = data_file("reference/" + dump + ".model.safetensors");
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(weights, folder / file);
  std::ofstream(folder / "config.json") << SafetensorsFile::open(weights).metadata().at("config");
}

void copy_text_model(const std::filesystem::path& folder) {
  copy_model("pixart_pipeline", folder / "transformer", "diffusion_pytorch_model.safetensors");
  copy_model("vae_plain", folder / "vae", "diffusion_pytorch_model.safetensors");
  copy_model("t5", folder / "text_encoder", "model.safetensors");
  std::filesystem::create_directories(folder / "tokenizer");
  std::filesystem::copy_file(data_file("tokenizer/spiece.model"), folder / "tokenizer/spiece.model");
}

void write_inception(const std::filesystem::path& path) {
  Inception model;
  draw_inception(model);
  NamedTensors tensors;
  model.visit("", [&](const std::string& name, nn::Parameter& p) { tensors.emplace_back(name, p.value); });
  tensors.emplace_back("Conv2d_1a_3x3.bn.num_batches_tracked",
                       Tensor::zeros({1}));  // as PyTorch's files have them
  write_safetensors(path, tensors);
}

std::string data_file(const std::string& name) { return std::string(LINNET_TEST_DATA) + "/" + name; }

}  // namespace linnet::test
