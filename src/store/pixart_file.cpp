#include "store/pixart_file.h"

#include <nlohmann/json.hpp>

#include <algorithm>

#include "io/text.h"
#include "store/folder_config.h"
#include "store/metadata.h"
#include "store/parameters.h"
#include "store/renaming.h"
#include "store/transformer_shapes.h"

namespace linnet {
namespace {

using NamePair = std::pair<std::string_view, std::string_view>;  // diffusers' and the original's

// Each with a weight and a bias.
constexpr NamePair outer_layers[] = {
    {"pos_embed.proj", "x_embedder.proj"},
    {"adaln_single.emb.timestep_embedder.linear_1", "t_embedder.mlp.0"},
    {"adaln_single.emb.timestep_embedder.linear_2", "t_embedder.mlp.2"},
    {"adaln_single.linear", "t_block.1"},
    {"caption_projection.linear_1", "y_embedder.y_proj.fc1"},
    {"caption_projection.linear_2", "y_embedder.y_proj.fc2"},
    {"proj_out", "final_layer.linear"},
};
constexpr NamePair micro_layers[] = {
    {"adaln_single.emb.resolution_embedder.linear_1", "csize_embedder.mlp.0"},
    {"adaln_single.emb.resolution_embedder.linear_2", "csize_embedder.mlp.2"},
    {"adaln_single.emb.aspect_ratio_embedder.linear_1", "ar_embedder.mlp.0"},
    {"adaln_single.emb.aspect_ratio_embedder.linear_2", "ar_embedder.mlp.2"},
};
// In blocks, after "transformer_blocks.N." and "blocks.N.".
constexpr NamePair block_layers[] = {
    {"attn1.to_out.0", "attn.proj"},
    {"attn2.to_q", "cross_attn.q_linear"},
    {"attn2.to_out.0", "cross_attn.proj"},
    {"ff.net.0.proj", "mlp.fc1"},
    {"ff.net.2", "mlp.fc2"},
};
// Likewise, of a model with norms of q and k, as the original's own conversion names them.
constexpr NamePair norm_layers[] = {{"attn1.q_norm", "attn.q_norm"}, {"attn1.k_norm", "attn.k_norm"}};
constexpr const char *kinds[] = {"weight", "bias"}, *micro = "csize_embedder.mlp.0.weight",
                     *null_caption = "y_embedder.y_embedding",
                     *theirs_of_null_caption = "caption_projection.y_embedding", *positions = "pos_embed";

Weights with_original_names(const Weights& weights) {
  Renaming names(weights);
  const auto move = [&](const std::string& theirs, const std::string& ours) {
    for (const char* kind : kinds)
      names.move(fmt::format("{}.{}", theirs, kind), fmt::format("{}.{}", ours, kind));
  };
  for (const auto& [theirs, ours] : outer_layers) move(std::string(theirs), std::string(ours));
  if (weights.contains(fmt::format("{}.weight", micro_layers[0].first)))
    for (const auto& [theirs, ours] : micro_layers) move(std::string(theirs), std::string(ours));
  names.move("scale_shift_table", "final_layer.scale_shift_table");
  names.drop("pos_embed.pos_embed");
  // A buffer that diffusers' first conversions of PixArt-α carried along, and the published folders have.
  if (weights.contains(theirs_of_null_caption)) names.move(theirs_of_null_caption, null_caption);
  const int64_t depth = count_blocks(weights, "transformer_blocks.{}.attn1.to_q.weight");
  for (int64_t i = 0; i < depth; ++i) {
    const std::string from = fmt::format("transformer_blocks.{}.", i), to = fmt::format("blocks.{}.", i);
    names.move(from + "scale_shift_table", to + "scale_shift_table");
    for (const auto& [theirs, ours] : block_layers)
      move(fmt::format("{}{}", from, theirs), fmt::format("{}{}", to, ours));
    if (weights.contains(from + "attn1.q_norm.weight"))
      for (const auto& [theirs, ours] : norm_layers)
        move(fmt::format("{}{}", from, theirs), fmt::format("{}{}", to, ours));
    for (const char* kind : kinds) {
      const auto part = [&](const char* name) { return fmt::format("{}{}.{}", from, name, kind); };
      names.join({part("attn1.to_q"), part("attn1.to_k"), part("attn1.to_v")},
                 fmt::format("{}attn.qkv.{}", to, kind));
      names.join({part("attn2.to_k"), part("attn2.to_v")}, fmt::format("{}cross_attn.kv_linear.{}", to, kind));
    }
  }
  return names.done("a text-to-image transformer");
}

// Tokens a side that become one among the keys and values of a block; 1: it has no convolution for it.
int64_t kv_compression_in(const Weights& weights, int64_t block, int64_t width) {
  const std::string name = fmt::format("blocks.{}.attn.sr.weight", block);
  if (!weights.contains(name)) return 1;
  const Shape& shape = weights.shape(name);
  const int64_t side = shape.rank() == 4 ? shape[3] : 0, most = PixArtConfig::most_kv_compression;
  check(
      side > 1 && side <= most && shape == Shape{width, 1, side, side},
      "{}: tensor '{}' of shape {} does not compress keys and values: that takes ({}, 1, s, s), s from 2 to {}",
      weights.source(), name, to_string(shape), width, most);
  return side;
}

void infer_from_shapes(const Weights& weights, PixArtConfig& config) {
  const Shape& patches = shape_of(weights, "x_embedder.proj.weight", 4);
  config.hidden_size = patches[0];
  config.in_channels = patches[1];
  config.patch_size = patches[2];
  config.depth = std::max<int64_t>(1, count_blocks(weights, "blocks.{}.attn.proj.weight"));
  config.mlp_ratio = static_cast<double>(shape_of(weights, "blocks.0.mlp.fc1.weight", 2)[0]) /
                     static_cast<double>(config.hidden_size);
  config.caption_channels = shape_of(weights, "y_embedder.y_proj.fc1.weight", 2)[1];
  config.null_caption = weights.contains(null_caption);
  config.micro_conditions = weights.contains(micro);
  if (config.null_caption)
    config.caption_tokens = shape_of(weights, null_caption, 2)[0];
  else
    config.caption_tokens = config.micro_conditions ? 120 : 300;
  const int64_t outputs = shape_of(weights, "final_layer.linear.weight", 2)[0];
  config.learn_sigma = outputs == 2 * config.in_channels * config.patch_size * config.patch_size;
  config.mixer = mixer_of(weights);
  config.num_cross_heads =
      config.hidden_size % 72 == 0 ? config.hidden_size / 72 : std::max<int64_t>(1, config.hidden_size / 64);
  config.num_heads = config.mixer == nn::Mixer::softmax ? config.num_cross_heads
                                                        : heads_of(weights, config.hidden_size).value_or(2);
  config.qk_norm = weights.contains("blocks.0.attn.q_norm.weight");
  for (int64_t i = 0; i < config.depth; ++i)
    config.kv_compression.push_back(kv_compression_in(weights, i, config.hidden_size));
  if (std::ranges::all_of(config.kv_compression, [](int64_t side) { return side == 1; }))
    config.kv_compression.clear();
  if (weights.contains(positions)) config.sample_size = side_of(weights, positions) * config.patch_size;
  config.interpolation = usual_interpolation(config.sample_size, config.caption_tokens);
}

// Where nothing else tells α from Σ, the pipeline does: it cuts texts at 120 tokens.
void take_from_pipeline(const std::string& text, PixArtConfig& config) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  const auto name = json.find("_class_name");  // not copied: that recurses, as deeply as a stranger wants
  if (!config.null_caption && name != json.end() && *name == "PixArtAlphaPipeline") config.caption_tokens = 120;
}

void take_from_folder(const std::string& text, PixArtConfig& config) {
  const FolderConfig stated(text);
  stated.expect("activation_fn", "gelu-approximate");
  stated.take("num_attention_heads", config.num_cross_heads);
  stated.take("sample_size", config.sample_size);
  if (config.mixer == nn::Mixer::softmax) config.num_heads = config.num_cross_heads;
  // Without a word about it, diffusers takes one unit for 512 pixels and below.
  config.interpolation = static_cast<double>(std::max<int64_t>(config.sample_size / 64, 1));
  stated.take("interpolation_scale", config.interpolation);
}

}  // namespace

bool has_diffusers_pixart_names(const Weights& weights) {
  return weights.contains("caption_projection.linear_1.weight") &&
         weights.contains("adaln_single.linear.weight");
}

bool looks_like_pixart(const Weights& weights) {
  return has_diffusers_pixart_names(weights) ||
         (weights.contains("y_embedder.y_proj.fc1.weight") && weights.contains("t_block.1.weight"));
}

Weights find_pixart_weights(const Weights& file, Choice choice) {
  const Weights model = transformer_weights(file, choice);
  check(looks_like_pixart(model),
        "{}: these are not the weights of a text-to-image transformer (PixArt or LiT)", file.source());
  return has_diffusers_pixart_names(model) ? with_original_names(model) : model;
}

Weights without_positions(const Weights& weights) {
  Weights result = weights.empty_like();
  for (const Weights::Item& item : weights.items())
    if (item.name != positions) result.add(item);
  return result;
}

PixArtConfig read_pixart_config(const Weights& weights) {
  return weights.naming_source([&] {
    if (const auto stated = weights.metadata().find(config_key); stated != weights.metadata().end())
      return pixart_config_from_json(stated->second);
    PixArtConfig config;
    infer_from_shapes(weights, config);
    if (const auto index = weights.metadata().find(folder_pipeline_key); index != weights.metadata().end())
      take_from_pipeline(index->second, config);
    if (const auto stated = weights.metadata().find(folder_config_key); stated != weights.metadata().end())
      take_from_folder(stated->second, config);
    config.prediction = prediction_of_scheduler(weights).value_or(config.prediction);
    config.validate();
    return config;
  });
}

LoadedPixArt load_pixart(const Weights& weights) {
  LoadedPixArt result{std::make_unique<PixArt>(read_pixart_config(weights)), weights.metadata()};
  read_parameters(nn::all_parameters(*result.model), without_positions(weights));
  return result;
}

LoadedPixArt load_pixart(const std::filesystem::path& path, Choice choice) {
  return load_pixart(find_pixart_weights(Weights::open(path), choice));
}

void save_pixart(const std::filesystem::path& path, PixArt& model, DType dtype,
                 const std::map<std::string, std::string>& extra) {
  auto metadata = extra;
  metadata[config_key] = to_json(model.config());
  write_safetensors(path, values_of(nn::learned_parameters(model), dtype), metadata);
}

}  // namespace linnet
