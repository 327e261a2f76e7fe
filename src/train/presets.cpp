#include "train/presets.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "core/error.h"
#include "core/text.h"

namespace linnet {
namespace {

constexpr std::string_view lit = "LiT, ImageNet 256", lit_512 = "LiT, ImageNet 512",
                           ablation = "LiT, ablations";
constexpr std::string_view dit = "DiT, ImageNet 256", dit_512 = "DiT, ImageNet 512", scaling = "DiT, scaling";
constexpr std::string_view t2i = "LiT, text to image";
constexpr std::string_view xl = "DiT-XL/2", sigma = "PixArt-XL/2", nobody = "";

constexpr std::array all = {
    Preset{"lit-s-2-imagenet256", "LiT-S/2", 256, 400'000, 256, 0.5, 0.05, "DiT-S/2", xl, ablation},
    Preset{"lit-b-2-imagenet256", "LiT-B/2", 256, 400'000, 256, 0.5, 0.05, "DiT-B/2", xl, ablation},
    Preset{"lit-l-2-imagenet256", "LiT-L/2", 256, 400'000, 256, 0.5, 0.05, "DiT-L/2", xl, ablation},
    Preset{"lit-xl-2-imagenet256", "LiT-XL/2", 256, 1'400'000, 256, 0.5, 0.05, xl, xl, lit},
    Preset{"lit-xl-2-imagenet512", "LiT-XL/2", 512, 700'000, 128, 1.0, 0.05, xl, xl, lit_512},
    Preset{"dit-s-2-imagenet256", "DiT-S/2", 256, 400'000, 256, 0, 0, nobody, nobody, scaling},
    Preset{"dit-b-2-imagenet256", "DiT-B/2", 256, 400'000, 256, 0, 0, nobody, nobody, scaling},
    Preset{"dit-l-2-imagenet256", "DiT-L/2", 256, 400'000, 256, 0, 0, nobody, nobody, scaling},
    Preset{"dit-xl-2-imagenet256", "DiT-XL/2", 256, 7'000'000, 256, 0, 0, nobody, nobody, dit},
    Preset{"dit-xl-2-imagenet512", "DiT-XL/2", 512, 3'000'000, 256, 0, 0, nobody, nobody, dit_512},
    // The paper says no batch for texts: that of its models of classes.
    Preset{"lit-xl-2-t2i-512", "LiT-T2I-XL/2", 512, 45'400, 256, 1.0, 0.05, sigma, sigma, t2i, true},
    Preset{"lit-xl-2-t2i-1024", "LiT-T2I-XL/2", 1024, 45'400, 256, 1.0, 0.05, "LiT-T2I-XL/2 at 512", sigma, t2i,
           true},
};

}  // namespace

std::span<const Preset> presets() { return all; }

const Preset& find_preset(std::string_view name) {
  std::vector<std::string> names;
  for (const Preset& preset : all) {
    if (preset.name == name) return preset;
    names.emplace_back(preset.name);
  }
  const std::string near = nearest(name, names);
  throw UsageError(near.empty()
                       ? fmt::format("there is no preset \"{}\"; known: {}", name, fmt::join(names, ", "))
                       : fmt::format("there is no preset \"{}\"; did you mean \"{}\"?", name, near));
}

namespace {

std::string heading(const Preset& preset) {
  const std::string_view paper = preset.model.substr(0, 3) == "LiT" ? "2501.12976" : "2212.09748";
  std::string text =
      fmt::format("# {} on {} at {} x {} pixels (arXiv {}).\n", preset.model,
                  preset.of_texts ? "pictures with texts" : "ImageNet", preset.pixels, preset.pixels, paper);
  if (!preset.ancestor.empty())
    text += fmt::format(
        "# It starts from a {}'s weights (linnet inherit, then --init) and learns from a {} (--teacher){}.\n",
        preset.ancestor, preset.teacher, preset.of_texts ? "" : ",\n# both trained at this resolution");
  return text;
}

std::string model_of(const Preset& preset) {
  if (preset.of_texts)
    return fmt::format(
        "[model]\n"
        "preset = \"{}\"\n"
        "sample_size = {}  # latents of {} x {} pixels\n"
        "interpolation = {:.1f}\n"
        "\n"
        "[text]\n"
        "dropout = 0.1\n"
        "\n",
        preset.model, preset.pixels / 8, preset.pixels, preset.pixels,
        static_cast<double>(preset.pixels) / 512);
  return fmt::format(
      "[model]\n"
      "preset = \"{}\"\n"
      "input_size = {}  # latents of {} x {} pixels\n"
      "num_classes = 1000\n"
      "class_dropout = 0.1\n"
      "\n",
      preset.model, preset.pixels / 8, preset.pixels, preset.pixels);
}

std::string training_of(const Preset& preset) {
  std::string text = fmt::format("[train]\nsteps = {}\nbatch = {}\nlr = {}\nweight_decay = 0.0\nema = 0.9999\n",
                                 preset.steps, preset.batch, preset.lr());
  if (preset.of_texts) text += "optimizer = \"came\"\nwarmup = 1000\nclip = 0.01\ncheckpointing = true\n";
  return text + "\n";
}

}  // namespace

std::string to_toml(const Preset& preset) {
  std::string text = heading(preset) + model_of(preset) + training_of(preset);
  if (!preset.teacher.empty())
    text += fmt::format("[distil]  # acts with a teacher\nnoise = {:.2f}\nvariance = {:.2f}\n\n", preset.noise,
                        preset.variance);
  return text + fmt::format("[output]\ndir = \"runs/{}\"\n", preset.name);
}

}  // namespace linnet
