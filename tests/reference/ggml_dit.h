// DiT and LiT as a ggml graph on ggml's CPU backend (and its BLAS backend, where that is installed): the peer
// that bench_ggml.cpp times. It takes its weights from one of Linnet's models. ggml has no operation for linear
// attention: LiT is put together from those that it has.
#pragma once

#include <ggml-cpp.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "models/dit.h"

namespace linnet::peer {

/// How ggml computes softmax attention: two products with a softmax between, or ggml_flash_attn_ext.
enum class Attention : uint8_t { products, flash };

class GgmlDiT {
 public:
  /// The matrices of the blocks are kept in dtype, everything else in f32, as Linnet does. Copies the model's
  /// weights.
  GgmlDiT(DiT& model, ggml_type dtype, int threads);

  /// Plans the forward pass on pictures x (batch, channels, size, size) f32, timesteps t (batch) f32 and
  /// classes y (batch) i64, and takes these inputs.
  void plan(Attention attention, const Tensor& x, const Tensor& t, const Tensor& y);
  /// What was planned; the only thing to time.
  void forward();
  /// (batch, out_channels, size, size) f32
  Tensor output() const;
  /// "CPU", or "BLAS + CPU"
  std::string backends() const;

 private:
  void copy_weights(DiT& model, ggml_type dtype);

  DiTConfig config_;
  std::vector<ggml_backend_ptr> backends_;  ///< in order of preference, the CPU's own last
  ggml_context_ptr weights_context_, inputs_context_, graph_context_;
  ggml_backend_buffer_ptr weights_buffer_, inputs_buffer_;
  ggml_backend_sched_ptr scheduler_;
  std::unordered_map<std::string, ggml_tensor*> weights_;
  ggml_cgraph* graph_ = nullptr;
};

}  // namespace linnet::peer
