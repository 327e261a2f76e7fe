#include "store/dit_weights.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstring>
#include <set>

#include "io/text.h"

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

int64_t count_blocks(const Weights& weights, const char* pattern) {
  int64_t count = 0;
  while (weights.contains(fmt::format(fmt::runtime(pattern), count))) ++count;
  return count;
}

Tensor join_rows(const std::vector<Tensor>& parts) {
  std::vector<int64_t> extents(parts[0].shape().begin(), parts[0].shape().end());
  extents[0] = 0;
  for (const Tensor& part : parts) extents[0] += part.size(0);
  Tensor result = Tensor::empty(Shape(extents), parts[0].dtype());
  auto* out = static_cast<char*>(result.mutable_raw());
  for (const Tensor& part : parts) {
    std::memcpy(out, part.raw(), part.bytes());
    out += part.bytes();
  }
  return result;
}

// Moves items one by one from one set of weights to another, and knows which are left.
class Renaming {
 public:
  explicit Renaming(const Weights& from) : from_(from), result_(from.empty_like()) {
    for (const Weights::Item& item : from.items()) left_.insert(item.name);
  }

  void move(const std::string& name, const std::string& new_name) {
    Weights::Item item = from_.item(name);
    item.name = new_name;
    result_.add(std::move(item));
    left_.erase(name);
  }
  void drop(const std::string& name) { left_.erase(name); }
  void join(const std::vector<std::string>& names, const std::string& new_name) {
    Weights::Item item = from_.item(names[0]);
    std::vector<std::function<Tensor()>> reads;
    int64_t rows = 0;
    for (const std::string& name : names) {
      const Weights::Item& part = from_.item(name);
      check(part.shape == item.shape && part.dtype_name == item.dtype_name && part.shape.rank() > 0,
            "{}: tensors '{}' and '{}' differ in shape or type", from_.source(), printable(names[0]),
            printable(name));
      rows += part.shape[0];
      reads.push_back(part.read);
      left_.erase(name);
    }
    std::vector<int64_t> extents(item.shape.begin(), item.shape.end());
    extents[0] = rows;
    item.name = new_name;
    item.shape = Shape(extents);
    item.read = [reads] {
      std::vector<Tensor> parts;
      for (const auto& read : reads) parts.push_back(read());
      return join_rows(parts);
    };
    result_.add(std::move(item));
  }
  void split(const std::string& name, const std::vector<std::string>& new_names) {
    const Weights::Item& whole = from_.item(name);
    const auto parts = static_cast<int64_t>(new_names.size()), rows = whole.shape[0] / parts;
    check(whole.shape.rank() > 0 && whole.shape[0] == rows * parts,
          "{}: tensor '{}' of shape {} has no {} equal parts", from_.source(), printable(name),
          to_string(whole.shape), parts);
    std::vector<int64_t> extents(whole.shape.begin(), whole.shape.end());
    extents[0] = rows;
    for (int64_t i = 0; i < parts; ++i)
      result_.add({new_names[static_cast<size_t>(i)], whole.dtype_name, whole.dtype, Shape(extents),
                   [read = whole.read, i, rows] { return read().rows(i * rows, (i + 1) * rows); }});
    left_.erase(name);
  }

  Weights done() {
    check(left_.empty(), "{}: tensor '{}' has no place in a DiT", from_.source(),
          left_.empty() ? "" : printable(*left_.begin()));
    return std::move(result_);
  }

 private:
  const Weights& from_;
  Weights result_;
  std::set<std::string> left_;
};

// Of a tensor that must be there with so many dimensions.
const Shape& shape_of(const Weights& weights, std::string_view name, int rank) {
  const Shape& shape = weights.shape(name);
  check(shape.rank() == rank && shape.numel() > 0, "{}: tensor '{}' of shape {} is not what a DiT has there",
        weights.source(), printable(name), to_string(shape));
  return shape;
}

// How many tokens a side those positions (1, tokens, width) have.
int64_t side_of(const Weights& weights, std::string_view positions) {
  const int64_t tokens = shape_of(weights, positions, 3)[1];
  const auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(tokens))));
  check(side * side == tokens, "{}: {} has {} tokens, which make no square", weights.source(), positions,
        tokens);
  return side;
}

constexpr const char* convolution = "blocks.0.attn.dwc.weight";

// focused_gelu has the names of focused, which it is taken for.
nn::Mixer mixer_of(const Weights& weights) {
  if (!weights.contains("blocks.0.attn.kv.weight")) return nn::Mixer::softmax;
  if (weights.contains("blocks.0.attn.scale")) return nn::Mixer::focused;
  return weights.contains(convolution) ? nn::Mixer::lit : nn::Mixer::linear;
}

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
  for (int64_t i = 0; i < depth; ++i) {
    const std::string from = fmt::format("transformer_blocks.{}.", i), to = fmt::format("blocks.{}.", i);
    for (const auto& [theirs, ours] : embedder_names) {
      const std::string name = fmt::format("{}norm1.emb.{}", from, theirs);
      if (i == 0)
        names.move(name, std::string(ours));
      else
        names.drop(name);
    }
    for (const auto& [theirs, ours] : block_names)
      names.move(fmt::format("{}{}", from, theirs), fmt::format("{}{}", to, ours));
    for (const char* kind : {"weight", "bias"})
      names.join({fmt::format("{}attn1.to_q.{}", from, kind), fmt::format("{}attn1.to_k.{}", from, kind),
                  fmt::format("{}attn1.to_v.{}", from, kind)},
                 fmt::format("{}attn.qkv.{}", to, kind));
  }
  return names.done();
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
  return names.done();
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
  config.num_heads = weights.contains(convolution)
                         ? config.hidden_size / std::max<int64_t>(1, shape_of(weights, convolution, 4)[0])
                         : usual_heads(config.mixer, config.hidden_size);
  for (const char* positions : {"blocks.0.attn.positional_encoding", "pos_embed"})
    if (weights.contains(positions)) config.input_size = side_of(weights, positions) * config.patch_size;
  if (const auto stated = weights.metadata().find(folder_config_key); stated != weights.metadata().end()) {
    const auto json = nlohmann::json::parse(stated->second, nullptr, false);
    const auto take = [&](const char* key, int64_t& value) {
      if (json.is_object() && json.contains(key) && json[key].is_number_integer())
        value = json[key].get<int64_t>();
    };
    take("num_attention_heads", config.num_heads);
    take("sample_size", config.input_size);
  }
  try {
    config.validate();
  } catch (const UsageError& error) {
    fail("{}: {}", weights.source(), error.what());
  }
  return config;
}

}  // namespace linnet
