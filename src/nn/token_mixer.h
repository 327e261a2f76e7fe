// Token mixers: the interchangeable part of a block that lets tokens see each other. LiT is DiT with another.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "nn/linear.h"

namespace linnet::nn {

enum class Mixer : uint8_t {
  softmax,       ///< multi-head self-attention, as DiT
  linear,        ///< ReLU linear attention
  lit,           ///< ReLU linear attention + depth-wise convolution of the values
  focused,       ///< FLatten's: lit with a sharper feature map and learned positions of the keys
  focused_gelu,  ///< the same with GELU in place of ReLU
};

constexpr bool is_focused(Mixer mixer) { return mixer == Mixer::focused || mixer == Mixer::focused_gelu; }
constexpr bool has_convolution(Mixer mixer) { return mixer == Mixer::lit || is_focused(mixer); }

std::string_view name_of(Mixer mixer);
/// Throws UsageError naming the known mixers.
Mixer mixer_from_name(std::string_view name);
/// "softmax, linear, lit, focused, focused_gelu"
std::string known_mixers();

class TokenMixer {
 public:
  virtual ~TokenMixer() = default;
  /// x (batch, rows·columns, width) → the same shape and type.
  virtual Tensor forward(const Tensor& x, int64_t rows, int64_t columns) const = 0;
  virtual void visit(const std::string& prefix, const ParameterVisitor& visitor) = 0;
};

/// What PixArt-Σ may add to softmax attention.
struct SoftmaxExtras {
  bool qk_norm = false;        ///< layer norms of q and of k, over all heads' channels
  int64_t kv_compression = 1;  ///< keys and values of so many tokens a side become one

  bool any() const { return qk_norm || kv_compression != 1; }
};

/// tokens is how many the mixer will see: the focused ones learn a position for each. Throws UsageError on
/// extras for another than softmax attention.
std::unique_ptr<TokenMixer> make_mixer(Mixer mixer, int64_t width, int64_t heads, int64_t tokens,
                                       const SoftmaxExtras& extras = {});

/// Multiply-adds of one mixer on one picture of n tokens, projections included, as LiT's figure 5 counts them:
/// softmax 4nd² + 2n²d, linear 4nd² + 3nd²/heads, lit and focused that + 25nd (feature maps count nothing).
int64_t mixer_macs(Mixer mixer, int64_t width, int64_t heads, int64_t tokens);

/// Floating-point operations of attention's sums on one picture, as they are computed: scores and weighted
/// values, of fewer keys than tokens where they are compressed; or their linear form.
double attention_flops(Mixer mixer, int64_t width, int64_t heads, int64_t tokens, int64_t keys);
/// The same with the projections: all of one mixer that goes into matrix products.
double mixer_flops(Mixer mixer, int64_t width, int64_t heads, int64_t tokens, int64_t keys);
inline double mixer_flops(Mixer mixer, int64_t width, int64_t heads, int64_t tokens) {
  return mixer_flops(mixer, width, heads, tokens, tokens);
}

}  // namespace linnet::nn
