// A small classifier of pictures, whose features before the last layer measure how alike two sets of pictures
// are (eval/frechet.h). It is built of LiT's blocks without conditioning: patches, positions, linear attention
// with its convolution, MLP, and the mean over the tokens. Always f32, so that a score does not depend on what
// the CPU can do.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/embeddings.h"
#include "nn/token_mixer.h"

namespace linnet {

struct ClassifierConfig {
  int64_t input_size = 32;  ///< side of the picture
  int64_t patch_size = 4;
  int64_t in_channels = 3;
  int64_t hidden_size = 96;  ///< also the number of features
  int64_t depth = 2;
  int64_t num_heads = 2;
  int64_t num_classes = 64;

  int64_t grid() const { return input_size / patch_size; }

  /// Throws UsageError on a configuration that cannot exist, or one beyond any sensible size.
  void validate() const;
  bool operator==(const ClassifierConfig&) const = default;
};

std::string to_json(const ClassifierConfig& config);
/// Throws Error on anything that is not a valid configuration.
ClassifierConfig classifier_config_from_json(std::string_view text);

class Classifier {
 public:
  explicit Classifier(const ClassifierConfig& config);

  /// x (batch, channels, size, size) f32 in -1..1 → (batch, hidden_size).
  Tensor features(const Tensor& x) const;
  /// Of features: (batch, num_classes), the logarithms of the classes' likelihoods but for a constant.
  Tensor logits(const Tensor& features) const { return head_.forward(features, DType::f32); }

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);
  const ClassifierConfig& config() const { return config_; }

 private:
  struct Block {
    std::unique_ptr<nn::TokenMixer> attn;
    nn::Linear fc1, fc2;
  };

  ClassifierConfig config_;
  nn::PatchEmbed patches_;
  Tensor positions_;
  std::vector<Block> blocks_;
  nn::Linear head_;
};

/// The likeliest class of each row of logits.
std::vector<int64_t> likeliest(const Tensor& logits);

}  // namespace linnet
