// T5's text encoder (Raffel et al., arXiv 1910.10683) in the shape of version 1.1 and of Flan: gated GELU, RMS
// norms, relative positions that all blocks share, no biases, no 1/√d. Parameter names are those of
// transformers' T5EncoderModel.
#pragma once

#include <functional>
#include <vector>

#include "nn/linear.h"
#include "ops/ragged_attention.h"

namespace linnet {

struct T5Config {
  int64_t vocabulary = 32128;
  int64_t width = 4096;    ///< d_model
  int64_t hidden = 10240;  ///< d_ff
  int64_t depth = 24;
  int64_t heads = 64, head_size = 64;
  int64_t distance_buckets = 32, max_distance = 128;
  float norm_epsilon = 1e-6f;

  /// Throws UsageError on a configuration that cannot exist, or one beyond any sensible size.
  void validate() const;
  bool operator==(const T5Config&) const = default;
};

class T5Block {
 public:
  explicit T5Block(const T5Config& config);
  /// x (all tokens, width) f32; bias as ops::ragged_attention takes it; products in dtype.
  Tensor forward(const Tensor& x, const ops::RaggedAttention& how, const Tensor& bias, float epsilon,
                 DType dtype) const;
  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);
  DType stored_dtype() const { return down_.weight.value.defined() ? down_.weight.value.dtype() : DType::f32; }

 private:
  nn::Parameter attention_norm_, hidden_norm_;
  nn::Linear q_, k_, v_, o_, gate_, up_, down_;
};

class T5Encoder {
 public:
  explicit T5Encoder(const T5Config& config);

  /// Texts one after the other: ids (all tokens) i64, text i being offsets[i] to offsets[i + 1]. Returns
  /// (all tokens, width) f32, the last hidden states. on_block is called after every block.
  Tensor forward(const Tensor& ids, const ops::Offsets& offsets,
                 const std::function<void()>& on_block = {}) const;

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);
  const T5Config& config() const { return config_; }
  /// Type of the large products: f32 or bf16. The blocks' matrices may be in 8 bits all the same: they are
  /// multiplied as the floats that they stand for. Rounding the activations to 8 bits too would be faster,
  /// but T5's have channels hundreds of times larger than the rest, whose share of 256 steps leaves nothing for
  /// the others (docs/architecture.md).
  void set_product_dtype(DType dtype);
  DType product_dtype() const { return dtype_; }
  /// Type that the blocks' matrices are kept in; f32 of an encoder that has no values.
  DType stored_dtype() const { return blocks_.front().stored_dtype(); }

 private:
  Tensor relative_bias(int64_t length) const;

  T5Config config_;
  DType dtype_ = DType::f32;
  nn::Parameter tokens_, distances_, final_norm_;
  std::vector<T5Block> blocks_;
};

}  // namespace linnet
