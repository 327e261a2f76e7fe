#include "store/vae_file.h"

#include <nlohmann/json.hpp>

#include <algorithm>

#include "io/text.h"
#include "store/parameters.h"
#include "store/renaming.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

// SDXL's autoencoder is told from Stable Diffusion's by what lies beside it alone.
constexpr const char* sdxl_key = "linnet.of_sdxl";
constexpr double sdxl_scaling = 0.13025;
constexpr std::string_view telltale = "decoder.conv_in.weight";  // in files of every kind, below their prefix

// Latent diffusion counts the decoder's levels from the picture, diffusers from the latents.
class NewNames {
 public:
  explicit NewNames(const Weights& weights) {
    while (std::any_of(weights.items().begin(), weights.items().end(), [&](const Weights::Item& item) {
      return item.name.starts_with(fmt::format("decoder.up.{}.", levels_));
    }))
      ++levels_;
  }

  std::string of(const std::string& name) const {
    std::vector<std::string> parts = split(name);
    const auto is = [&](size_t i, std::string_view text) { return i < parts.size() && parts[i] == text; };
    if ((is(1, "down") || is(1, "up")) && parts.size() > 4) {
      const std::string way = parts[1], level = level_of(way, parts[2]);
      if (is(3, "block"))
        replace(parts, 1, 3, {way + "_blocks", level, "resnets"});
      else if (is(3, way + "sample"))
        replace(parts, 1, 3, {way + "_blocks", level, way + "samplers", "0"});
    } else if (is(1, "mid") && (is(2, "block_1") || is(2, "block_2"))) {
      replace(parts, 1, 2, {"mid_block", "resnets", parts[2] == "block_1" ? "0" : "1"});
    } else if (is(1, "mid") && is(2, "attn_1")) {
      replace(parts, 1, 2, {"mid_block", "attentions", "0"});
    } else if (is(1, "norm_out")) {
      parts[1] = "conv_norm_out";
    }
    for (size_t i = 0; i + 2 < parts.size(); ++i)
      if (parts[i] == "attentions") parts[i + 2] = attention_name(parts[i + 2]);
    for (std::string& part : parts)
      if (part == "nin_shortcut") part = "conv_shortcut";
    return fmt::format("{}", fmt::join(parts, "."));
  }

 private:
  static std::vector<std::string> split(const std::string& name) {
    std::vector<std::string> parts;
    for (size_t begin = 0; begin <= name.size();) {
      const size_t end = std::min(name.find('.', begin), name.size());
      parts.push_back(name.substr(begin, end - begin));
      begin = end + 1;
    }
    return parts;
  }
  static void replace(std::vector<std::string>& parts, size_t first, size_t count,
                      const std::vector<std::string>& with) {
    const auto place = parts.begin() + static_cast<std::ptrdiff_t>(first);
    parts.insert(parts.erase(place, place + static_cast<std::ptrdiff_t>(count)), with.begin(), with.end());
  }
  std::string level_of(const std::string& way, const std::string& own) const {
    if (way == "down" || own.size() != 1 || own[0] < '0' || own[0] > '9') return own;
    return std::to_string(levels_ - 1 - (own[0] - '0'));
  }

  // "query" (diffusers before 0.17) or "q" (latent diffusion) → "to_q".
  static std::string attention_name(const std::string& name) {
    static constexpr std::pair<std::string_view, std::string_view> names[] = {
        {"query", "to_q"}, {"key", "to_k"}, {"value", "to_v"},        {"proj_attn", "to_out.0"}, {"q", "to_q"},
        {"k", "to_k"},     {"v", "to_v"},   {"proj_out", "to_out.0"}, {"norm", "group_norm"}};
    for (const auto& [theirs, ours] : names)
      if (name == theirs) return std::string(ours);
    return name;
  }

  int levels_ = 0;
};

// A projection (out, in) as the convolution (out, in, 1, 1) that it is on pixels.
Weights::Item as_convolution(Weights::Item item) {
  if (item.shape.rank() != 2) return item;
  item.shape = {item.shape[0], item.shape[1], 1, 1};
  item.read = [read = item.read, shape = item.shape] { return read().reshape(shape); };
  return item;
}

const Shape& kernel(const Weights& weights, const std::string& name) {
  const Shape& shape = weights.shape(name);
  check(shape.rank() == 4 && shape.numel() > 0, "{}: tensor '{}' of shape {} is no convolution's",
        weights.source(), printable(name), to_string(shape));
  return shape;
}

VaeConfig infer_config(const Weights& weights) {
  VaeConfig config;
  config.in_channels = kernel(weights, "encoder.conv_in.weight")[1];
  config.out_channels = kernel(weights, "decoder.conv_out.weight")[0];
  config.latent_channels = kernel(weights, "decoder.conv_in.weight")[1];
  config.block_out_channels.clear();
  const int64_t levels = count_blocks(weights, "encoder.down_blocks.{}.resnets.0.conv1.weight");
  for (int64_t i = 0; i < levels; ++i)
    config.block_out_channels.push_back(
        kernel(weights, fmt::format("encoder.down_blocks.{}.resnets.0.conv1.weight", i))[0]);
  config.layers_per_block = count_blocks(weights, "encoder.down_blocks.0.resnets.{}.conv1.weight");
  config.use_quant_conv = weights.contains("quant_conv.weight");
  config.use_post_quant_conv = weights.contains("post_quant_conv.weight");
  config.mid_block_add_attention = weights.contains("decoder.mid_block.attentions.0.to_q.weight");
  check(config.latent_channels == 4,
        "{}: nothing says how its latents of {} channels are scaled; give the folder with its config.json",
        weights.source(), config.latent_channels);
  if (weights.metadata().contains(sdxl_key)) config.scaling_factor = sdxl_scaling;
  config.validate();
  return config;
}

VaeConfig read_folder_config(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  check(json.is_object(), "config.json is no JSON object");
  if (const auto name = json.find("_class_name"); name != json.end() && name->is_string())
    check(*name == "AutoencoderKL", "it is an {}, not an AutoencoderKL", printable(name->get<std::string>()));
  return vae_config_from_json(text);
}

}  // namespace

namespace {

Weights weights_of_vae(const fs::path& given) {
  const fs::path inside = given / "vae";
  return find_vae_weights(Weights::open(is_folder(inside) ? inside : given));
}

}  // namespace

bool holds_vae(const Weights& file) { return file.prefix_before(telltale).has_value(); }

Weights find_vae_weights(const Weights& file) {
  const auto prefix = file.prefix_before(telltale);
  check(prefix.has_value(), "{}: this is no autoencoder: it has no tensor '{}'", file.source(), telltale);
  const Weights part = part_of(file, *prefix);
  const NewNames names(part);
  Weights result = part.empty_like();
  for (Weights::Item item : part.items()) {
    item.name = names.of(item.name);
    const bool ours = item.name.starts_with("encoder.") || item.name.starts_with("decoder.") ||
                      item.name.starts_with("quant_conv.") || item.name.starts_with("post_quant_conv.");
    if (!ours) continue;  // such as the discriminator of the training
    result.add(item.name.find(".attentions.") == std::string::npos ? std::move(item)
                                                                   : as_convolution(std::move(item)));
  }
  if (std::ranges::any_of(file.items(),
                          [](const auto& i) { return i.name.starts_with("conditioner.embedders."); }))
    result.set_metadata(sdxl_key, "");
  return result;
}

bool scaling_is_assumed(const Weights& weights) {
  return !weights.metadata().contains(folder_config_key) && !weights.metadata().contains(sdxl_key);
}

std::string note_on_scaling(const fs::path& given) {
  const Weights weights = weights_of_vae(given);
  if (!scaling_is_assumed(weights)) return {};
  return fmt::format(
      "{}: nothing says how its latents are scaled: by {}, as Stable Diffusion's (SDXL's: {}; give the "
      "folder with its config.json)",
      weights.source(), VaeConfig().scaling_factor, sdxl_scaling);
}

VaeConfig read_vae_config(const Weights& weights) {
  const auto found = weights.metadata().find(folder_config_key);
  return weights.naming_source([&] {
    return found == weights.metadata().end() ? infer_config(weights) : read_folder_config(found->second);
  });
}

std::unique_ptr<Vae> load_vae(const fs::path& given) {
  const Weights weights = weights_of_vae(given);
  auto model = std::make_unique<Vae>(read_vae_config(weights));
  read_parameters(nn::all_parameters(*model), weights);
  nn::freeze(*model);
  return model;
}

}  // namespace linnet
