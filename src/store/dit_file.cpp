#include "store/dit_file.h"

#include <nlohmann/json.hpp>

#include "io/text.h"
#include "store/folder_config.h"
#include "store/metadata.h"
#include "store/renaming.h"
#include "store/transformer_shapes.h"

namespace linnet {
namespace {

// Diffusers' name and the original's, of what is one tensor in both. In blocks after "transformer_blocks.N."
// and "blocks.N.".
using NamePair = std::pair<std::string_view, std::string_view>;
constexpr NamePair block_names[] = {
    {"norm1.linear.weight", "adaLN_modulation.1.weight"},
    {"norm1.linear.bias", "adaLN_modulation.1.bias"},
    {"attn1.to_out.0.weight", "attn.proj.weight"},
    {"attn1.to_out.0.bias", "attn.proj.bias"},
    {"ff.net.0.proj.weight", "mlp.fc1.weight"},
    {"ff.net.0.proj.bias", "mlp.fc1.bias"},
    {"ff.net.2.weight", "mlp.fc2.weight"},
    {"ff.net.2.bias", "mlp.fc2.bias"},
};
constexpr NamePair embedder_names[] = {
    // below "transformer_blocks.N.norm1.emb."
    {"timestep_embedder.linear_1.weight", "t_embedder.mlp.0.weight"},
    {"timestep_embedder.linear_1.bias", "t_embedder.mlp.0.bias"},
    {"timestep_embedder.linear_2.weight", "t_embedder.mlp.2.weight"},
    {"timestep_embedder.linear_2.bias", "t_embedder.mlp.2.bias"},
    {"class_embedder.embedding_table.weight", "y_embedder.embedding_table.weight"},
};
constexpr NamePair outer_names[] = {
    {"pos_embed.proj.weight", "x_embedder.proj.weight"},
    {"pos_embed.proj.bias", "x_embedder.proj.bias"},
    {"proj_out_1.weight", "final_layer.adaLN_modulation.1.weight"},
    {"proj_out_1.bias", "final_layer.adaLN_modulation.1.bias"},
    {"proj_out_2.weight", "final_layer.linear.weight"},
    {"proj_out_2.bias", "final_layer.linear.bias"},
};

}  // namespace

bool looks_like_dit(const Weights& weights) {
  return weights.contains("x_embedder.proj.weight") && weights.contains("y_embedder.embedding_table.weight");
}

bool has_diffusers_names(const Weights& weights) {
  return weights.contains("transformer_blocks.0.attn1.to_q.weight") &&
         weights.contains("transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight");
}

Weights with_original_names(const Weights& weights) {
  Renaming names(weights);
  const int64_t depth = count_blocks(weights, "transformer_blocks.{}.attn1.to_q.weight");
  for (const auto& [theirs, ours] : outer_names) names.move(std::string(theirs), std::string(ours));
  names.drop("pos_embed.pos_embed");
  for (const auto& [theirs, ours] : embedder_names) {
    std::vector<std::string> all;
    for (int64_t i = 0; i < depth; ++i)
      all.push_back(fmt::format("transformer_blocks.{}.norm1.emb.{}", i, theirs));
    names.move_alike(all, std::string(ours));
  }
  for (int64_t i = 0; i < depth; ++i) {
    const std::string from = fmt::format("transformer_blocks.{}.", i), to = fmt::format("blocks.{}.", i);
    for (const auto& [theirs, ours] : block_names)
      names.move(fmt::format("{}{}", from, theirs), fmt::format("{}{}", to, ours));
    for (const char* kind : {"weight", "bias"})
      names.join({fmt::format("{}attn1.to_q.{}", from, kind), fmt::format("{}attn1.to_k.{}", from, kind),
                  fmt::format("{}attn1.to_v.{}", from, kind)},
                 fmt::format("{}attn.qkv.{}", to, kind));
  }
  return names.done("a DiT");
}

Weights with_diffusers_names(const Weights& weights, const DiTConfig& config) {
  if (config.mixer != nn::Mixer::softmax)
    throw UsageError("diffusers has no LiT: only a DiT with softmax attention can have its names");
  if (config.mlp_size() != 4 * config.hidden_size)
    throw UsageError(fmt::format("diffusers' DiT has an MLP of four times the width of {}, this one's has {}",
                                 config.hidden_size, config.mlp_size()));
  Renaming names(weights);
  for (const auto& [theirs, ours] : outer_names) names.move(std::string(ours), std::string(theirs));
  names.drop("pos_embed");
  for (int64_t i = 0; i < config.depth; ++i) {
    const std::string from = fmt::format("blocks.{}.", i), to = fmt::format("transformer_blocks.{}.", i);
    for (const auto& [theirs, ours] : embedder_names)
      names.move(std::string(ours), fmt::format("{}norm1.emb.{}", to, theirs));
    for (const auto& [theirs, ours] : block_names)
      names.move(fmt::format("{}{}", from, ours), fmt::format("{}{}", to, theirs));
    for (const char* kind : {"weight", "bias"})
      names.split(fmt::format("{}attn.qkv.{}", from, kind),
                  {fmt::format("{}attn1.to_q.{}", to, kind), fmt::format("{}attn1.to_k.{}", to, kind),
                   fmt::format("{}attn1.to_v.{}", to, kind)});
  }
  return names.done("a DiT");
}

std::string diffusers_config(const DiTConfig& config) {
  nlohmann::ordered_json json;
  json["_class_name"] = "DiTTransformer2DModel";
  json["activation_fn"] = "gelu-approximate";
  json["attention_bias"] = true;
  json["attention_head_dim"] = config.hidden_size / config.num_heads;
  json["dropout"] = 0.0;
  json["in_channels"] = config.in_channels;
  json["norm_elementwise_affine"] = false;
  json["norm_eps"] = 1e-5;
  json["norm_num_groups"] = 32;
  json["norm_type"] = "ada_norm_zero";
  json["num_attention_heads"] = config.num_heads;
  json["num_embeds_ada_norm"] =
      config.null_class() ? config.num_classes : config.num_classes - 1;  // diffusers adds one
  json["num_layers"] = config.depth;
  json["out_channels"] = config.out_channels();
  json["patch_size"] = config.patch_size;
  json["sample_size"] = config.input_size;
  json["upcast_attention"] = false;
  return json.dump(2) + "\n";
}

Weights find_dit_weights(const Weights& file, Choice choice) {
  Weights model = transformer_weights(file, choice);
  return has_diffusers_names(model) ? with_original_names(model) : model;
}

DiTConfig read_dit_config(const Weights& weights) {
  const auto& metadata = weights.metadata();
  const auto found = metadata.find(config_key);
  if (found == metadata.end()) return infer_dit_config(weights);
  return weights.naming_source([&] { return dit_config_from_json(found->second); });
}

DiTConfig infer_dit_config(const Weights& weights) {
  check(looks_like_dit(weights), "{}: these are not the weights of a DiT or LiT", weights.source());
  DiTConfig config;
  const Shape& patches = shape_of(weights, "x_embedder.proj.weight", 4);
  config.hidden_size = patches[0];
  config.in_channels = patches[1];
  config.patch_size = patches[2];
  config.depth = std::max<int64_t>(1, count_blocks(weights, "blocks.{}.attn.proj.weight"));
  config.mlp_ratio = static_cast<double>(shape_of(weights, "blocks.0.mlp.fc1.weight", 2)[0]) /
                     static_cast<double>(config.hidden_size);
  // Published models all were trained with a row for "no class".
  config.num_classes = shape_of(weights, "y_embedder.embedding_table.weight", 2)[0] - 1;
  const int64_t outputs = shape_of(weights, "final_layer.linear.weight", 2)[0];
  config.learn_sigma = outputs == 2 * config.in_channels * config.patch_size * config.patch_size;
  config.mixer = mixer_of(weights);
  config.num_heads =
      heads_of(weights, config.hidden_size).value_or(usual_heads(config.mixer, config.hidden_size));
  for (const char* positions : {"blocks.0.attn.positional_encoding", "pos_embed"})
    if (weights.contains(positions)) config.input_size = side_of(weights, positions) * config.patch_size;
  weights.naming_source([&] {
    if (const auto found = weights.metadata().find(folder_config_key); found != weights.metadata().end()) {
      const FolderConfig stated(found->second);
      stated.expect("activation_fn", "gelu-approximate");
      stated.take("num_attention_heads", config.num_heads);
      stated.take("sample_size", config.input_size);
    }
    config.prediction = prediction_of_scheduler(weights).value_or(config.prediction);
    config.validate();
  });
  return config;
}

LoadedDiT load_dit(const Weights& weights) {
  LoadedDiT result;
  result.metadata = weights.metadata();
  const DiTConfig config = read_dit_config(weights);
  result.class_names = read_class_names(weights, config.num_classes);
  result.model = std::make_unique<DiT>(config);
  read_parameters(nn::all_parameters(*result.model), weights);
  return result;
}

LoadedDiT load_dit(const std::filesystem::path& path, Choice choice) {
  return load_dit(find_dit_weights(Weights::open(path), choice));
}

void save_dit(const std::filesystem::path& path, DiT& model, DType dtype,
              const std::map<std::string, std::string>& extra, bool with_positions) {
  std::map<std::string, std::string> metadata = extra;
  metadata[config_key] = to_json(model.config());
  write_safetensors(
      path, values_of(with_positions ? nn::all_parameters(model) : nn::learned_parameters(model), dtype),
      metadata);
}

}  // namespace linnet
