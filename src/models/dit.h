// The diffusion transformer (DiT, Peebles & Xie, arXiv 2212.09748), of which LiT (arXiv 2501.12976) is a
// configuration: mixer = lit and few heads. Parameter names are those of facebookresearch/DiT.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "diffusion/prediction.h"
#include "nn/embeddings.h"
#include "nn/token_mixer.h"
#include "ops/residual_norm.h"

namespace linnet {

struct DiTConfig {
  int64_t input_size = 32;  ///< side of the (latent) picture
  int64_t patch_size = 2;
  int64_t in_channels = 4;
  int64_t hidden_size = 1152;
  int64_t depth = 28;
  int64_t num_heads = 16;
  double mlp_ratio = 4.0;
  int64_t num_classes = 1000;
  double class_dropout = 0.1;  ///< above 0 there is a row for "no class", which guidance needs
  bool learn_sigma = true;     ///< predict the variance too: twice as many output channels
  nn::Mixer mixer = nn::Mixer::softmax;
  Prediction prediction = Prediction::epsilon;

  int64_t grid() const { return input_size / patch_size; }
  int64_t tokens() const { return grid() * grid(); }
  int64_t out_channels() const { return learn_sigma ? 2 * in_channels : in_channels; }
  int64_t mlp_size() const { return nn::mlp_width(hidden_size, mlp_ratio); }
  bool null_class() const { return class_dropout > 0; }

  /// Throws UsageError on a configuration that cannot exist, or one beyond any sensible size.
  void validate() const;
  bool operator==(const DiTConfig&) const = default;
};

/// "LiT-XL/2", "DiT-B/4", … on 256² pixels' latents; throws UsageError listing the known names.
DiTConfig dit_preset(std::string_view name);

/// "XL/2" of a model of a published width, depth and patch size; else empty.
std::string size_name(const DiTConfig& config);

/// Heads of that attention as published for this width; of other widths, one for every 64 channels of softmax
/// attention and two of a linear one.
int64_t usual_heads(nn::Mixer mixer, int64_t width);

/// The JSON object that a checkpoint carries.
std::string to_json(const DiTConfig& config);
/// The same with every setting, also those that are left out where they have their usual value.
std::string to_full_json(const DiTConfig& config);
/// Throws Error on anything that is not a valid configuration.
DiTConfig dit_config_from_json(std::string_view text);

/// Multiply-adds of one forward pass on one picture, biases and norms not counted.
int64_t count_macs(const DiTConfig& config);
/// Floating-point operations that go into matrix products in one forward pass on one picture: what `linnet
/// bench` divides by the time. Attention's own sums are counted as they are computed.
double gemm_flops(const DiTConfig& config);

/// One block: adaLN-Zero around the token mixer and around the MLP.
class DiTBlock {
 public:
  explicit DiTBlock(const DiTConfig& config);
  /// The stream's x (batch, tokens, width) f32, conditioning (batch, width) in the product type. Returns the
  /// stream before its last branch has joined, which the next block's norm does.
  ops::Residual forward(ops::Residual stream, const Tensor& conditioning, int64_t grid) const;
  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);
  bool stored_in_8_bits() const { return fc1_.weight.scale.defined(); }

 private:
  std::unique_ptr<nn::TokenMixer> attn_;
  nn::BlockLinear fc1_, fc2_, adaln_;
};

class DiT {
 public:
  explicit DiT(const DiTConfig& config);

  /// x (batch, in_channels, size, size) f32, t (batch) f32 in 0..999, y (batch) i64 class indices.
  /// Returns (batch, out_channels, size, size) f32: predicted noise (or v, or x₀), then, with learn_sigma, the
  /// variance's interpolation.
  Tensor forward(const Tensor& x, const Tensor& t, const Tensor& y) const;

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);

  const DiTConfig& config() const { return config_; }
  /// Type of the large products: f32, bf16, or, for inference, i8, which rounds the blocks' matrices to 8 bits
  /// (others give them back as f32). Embeddings, the final layer and all reductions stay f32.
  void set_product_dtype(DType dtype);
  DType product_dtype() const { return product_dtype_; }
  /// The type that a name (see ops::product_dtype_from_name) means for this model on that device: "auto" is i8
  /// if its weights were stored so.
  DType product_dtype_from_name(std::string_view name, const Device& device = {}) const;
  /// In training, keep only each block's input and compute the rest again (less memory, a third more time).
  void set_checkpointing(bool on) { checkpointing_ = on; }

 private:
  DiTConfig config_;
  DType product_dtype_ = DType::f32;
  bool checkpointing_ = false;
  nn::PatchEmbed x_embedder_;
  nn::TimestepEmbedder t_embedder_;
  nn::LabelEmbedder y_embedder_;
  nn::Parameter pos_embed_;
  std::vector<DiTBlock> blocks_;
  nn::Linear final_linear_, final_adaln_;
};

}  // namespace linnet
