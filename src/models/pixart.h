// The text-to-image transformer of PixArt-α and -Σ (Chen et al., arXiv 2310.00426 and 2403.04692): DiT with
// cross-attention over a text and one adaLN for all blocks, of which each adds a table of its own. LiT's
// text-to-image model is this with mixer = lit and two heads. Parameter names are the original's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "diffusion/prediction.h"
#include "nn/embeddings.h"
#include "nn/token_mixer.h"
#include "ops/ragged_attention.h"
#include "ops/residual_norm.h"

namespace linnet {

struct PixArtConfig {
  int64_t sample_size = 128;  ///< side of the latents that it was made for: 32, 64, 128, 256 for 256 px to 2K
  int64_t patch_size = 2;
  int64_t in_channels = 4;
  int64_t hidden_size = 1152;
  int64_t depth = 28;
  int64_t num_heads = 16;        ///< of the token mixer
  int64_t num_cross_heads = 16;  ///< of the attention over the text
  double mlp_ratio = 4.0;
  int64_t caption_channels = 4096;  ///< width of the text encoder's states
  int64_t caption_tokens = 300;     ///< at most; α: 120
  /// Positions are in units of tokens of the base resolution, divided by this: 0.5, 1, 2, 4 for 256 px to 2K.
  double interpolation = 2.0;
  bool null_caption = true;       ///< y_embedding is there: what stood for "no text" in PixArt's training
  bool micro_conditions = false;  ///< is told the picture's size and aspect ratio: α at 1024 px
  bool learn_sigma = true;
  nn::Mixer mixer = nn::Mixer::softmax;
  Prediction prediction = Prediction::epsilon;
  bool qk_norm = false;  ///< layer norms of q and k, in softmax attention
  /// Of each block, how many tokens a side become one among the keys and values of its softmax attention;
  /// empty: nowhere more than one. Σ, where it is: 2 in the second half.
  std::vector<int64_t> kv_compression;

  static constexpr int64_t most_kv_compression = 16;
  int64_t kv_compression_of(int64_t block) const {
    return kv_compression.empty() ? 1 : kv_compression[static_cast<size_t>(block)];
  }
  int64_t out_channels() const { return learn_sigma ? 2 * in_channels : in_channels; }
  int64_t mlp_size() const { return nn::mlp_width(hidden_size, mlp_ratio); }
  /// Throws UsageError on a configuration that cannot exist, or one beyond any sensible size.
  void validate() const;
  bool operator==(const PixArtConfig&) const = default;
};

/// The interpolation of released models of a size, Σ's or, of at most 120 tokens a text, α's.
double usual_interpolation(int64_t sample_size, int64_t caption_tokens);

/// "PixArt-XL/2" (Σ) or "LiT-T2I-XL/2", made for 1024 pixels; nothing for other names.
std::optional<PixArtConfig> pixart_preset(std::string_view name);

std::string to_json(const PixArtConfig& config);
/// The same with every setting, also those that are left out where they have their usual value.
std::string to_full_json(const PixArtConfig& config);
/// Throws Error on anything that is not a valid configuration.
PixArtConfig pixart_config_from_json(std::string_view text);

/// Floating-point operations in matrix products of one pass over one picture of latents height × width with a
/// text of so many tokens, as DiT's gemm_flops counts them; compressing keys and values is no matrix product.
double gemm_flops(const PixArtConfig& config, int64_t height, int64_t width, int64_t text_tokens);

/// Texts as their encoder saw them, one after the other: text i is rows offsets[i] to offsets[i + 1].
struct TextStates {
  Tensor states;  ///< (all tokens, caption_channels) of any float type
  ops::Offsets offsets;

  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t length(int64_t text) const {
    return offsets[static_cast<size_t>(text) + 1] - offsets[static_cast<size_t>(text)];
  }
  /// One text's states (its tokens, caption_channels), in the same memory.
  Tensor of(int64_t text) const {
    return states.rows(offsets[static_cast<size_t>(text)], offsets[static_cast<size_t>(text) + 1]);
  }
  /// Texts begin to end, in the same memory.
  TextStates part(int64_t begin, int64_t end) const;
};
/// Texts (tokens, caption_channels) of one type and of any lengths, one after the other; one at least. They lie
/// on the GPU if one of them does.
TextStates join(const std::vector<Tensor>& texts);

class PixArtBlock {
 public:
  PixArtBlock(const PixArtConfig& config, int64_t index);
  /// The stream's x (batch, tokens, width) f32; modulation (batch, 6·width) f32, the same for all blocks; text
  /// (all text tokens, width), whose type is that of the products. Returns the stream before its last branch
  /// has joined, which the next block's norm does.
  ops::Residual forward(ops::Residual stream, const Tensor& modulation, const Tensor& text,
                        const ops::Offsets& offsets, int64_t rows, int64_t columns) const;
  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);
  bool stored_in_8_bits() const { return fc1_.weight.scale.defined(); }

 private:
  int64_t cross_heads_;
  nn::Parameter table_;
  std::unique_ptr<nn::TokenMixer> attn_;
  nn::BlockLinear cross_q_, cross_kv_, cross_proj_, fc1_, fc2_;
};

class PixArt {
 public:
  explicit PixArt(const PixArtConfig& config);

  /// Size in pixels and aspect ratio (height / width), as α's micro-conditions have them.
  struct PictureSize {
    float height = 0, width = 0;
  };

  /// x (batch, in_channels, h, w) f32, t (batch) f32 in 0..999, one text for each. size is what the model is
  /// told of all pictures if it takes micro-conditions; without, the size of latents of an eighth. Returns
  /// (batch, out_channels, h, w) f32: what it predicts, then the variance's interpolation.
  Tensor forward(const Tensor& x, const Tensor& t, const TextStates& texts,
                 std::optional<PictureSize> size = {}) const;

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);
  const PixArtConfig& config() const { return config_; }
  /// As DiT::set_product_dtype: f32, bf16, or, for inference, i8 for the blocks' matrices.
  void set_product_dtype(DType dtype);
  DType product_dtype() const { return product_dtype_; }
  DType product_dtype_from_name(std::string_view name, const Device& device = {}) const;
  void set_checkpointing(bool on) { checkpointing_ = on; }
  /// Called after every block of a forward pass.
  void set_on_block(std::function<void()> on_block) { on_block_ = std::move(on_block); }
  /// The published models' embedding of no text, (caption_tokens, caption_channels); null_caption must be true.
  TextStates null_text() const;

 private:
  Tensor time_and_size(const Tensor& t, int64_t batch, const PictureSize& size) const;

  PixArtConfig config_;
  DType product_dtype_ = DType::f32;
  bool checkpointing_ = false;
  std::function<void()> on_block_;
  nn::PatchEmbed x_embedder_;
  nn::TimestepEmbedder t_embedder_, size_embedder_, ratio_embedder_;
  nn::Linear t_block_, text_fc1_, text_fc2_, final_linear_;
  nn::Parameter null_caption_, final_table_;
  std::vector<PixArtBlock> blocks_;
  mutable nn::PositionCache positions_;
};

}  // namespace linnet
