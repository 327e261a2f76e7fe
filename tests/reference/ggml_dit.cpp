#include "ggml_dit.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <cmath>

#include "core/error.h"

// ggml writes shapes fastest dimension first; so do the comments here. "rows" are tokens × batch.
namespace linnet::peer {
namespace {

constexpr float norm_epsilon = 1e-6f, feature_epsilon = 1e-6f;
constexpr int frequency_width = 256, longest_period = 10000, dwc_side = 5;
constexpr size_t most_nodes = 16384;

using Node = ggml_tensor*;

ggml_context_ptr make_context(size_t bytes) {
  return ggml_context_ptr(ggml_init({bytes, nullptr, /*no_alloc=*/true}));
}

/// Writes the lines of DiT's forward pass as nodes of a graph.
class GraphWriter {
 public:
  GraphWriter(ggml_context* context, const std::unordered_map<std::string, ggml_tensor*>& weights,
              const DiTConfig& config, Attention attention, int64_t batch)
      : ctx(context), weights_(weights), config_(config), attention_(attention), batch_(batch) {}

  Node forward(Node x, Node t, Node y) {
    Node h = patch_embed(x);                                        // (width, rows)
    const Node c = condition(t, y), activated = ggml_silu(ctx, c);  // (width, batch)
    for (int64_t i = 0; i < config_.depth; ++i) {
      prefix_ = fmt::format("blocks.{}.", i);
      h = block(h, activated);
    }
    prefix_ = "final_layer.";
    const Node m = linear("adaLN_modulation.1", activated);
    return unpatchify(linear("linear", norm_modulate(h, m, 0)));
  }

 private:
  Node block(Node x, Node activated) {
    const Node m = linear("adaLN_modulation.1", activated);  // (6 · width, batch): shift, scale, gate; twice
    x = gated_residual(x, m, 2, mix(norm_modulate(x, m, 0)));
    const Node hidden = ggml_gelu(ctx, linear("mlp.fc1", norm_modulate(x, m, 3)));
    return gated_residual(x, m, 5, linear("mlp.fc2", hidden));
  }

  Node mix(Node x) {
    const Node o = config_.mixer == nn::Mixer::softmax ? softmax_attention(x) : linear_attention(x);
    return linear("attn.proj", o);
  }

  // Head widths that fill no whole vectors (72 of DiT-XL) leave ggml's fast products and its tiled attention;
  // with zeros up to a multiple of 16 they stay there and the scores are the same.
  Node softmax_attention(Node x) {
    const Node qkv = linear("attn.qkv", x);
    const Node q = padded(heads_first(part(qkv, 0))),
               k = padded(heads_first(part(qkv, 1)));  // (d, tokens, heads, batch)
    const Node v = part(qkv, 2);                       // (d, heads, tokens, batch)
    const float scale = 1 / std::sqrt(static_cast<float>(head_width()));
    Node o;
    if (attention_ == Attention::flash) {
      o = ggml_flash_attn_ext(ctx, q, k, padded(heads_first(v)), nullptr, scale, 0,
                              0);  // (d, heads, tokens, batch)
      o = ggml_view_4d(ctx, o, head_width(), o->ne[1], o->ne[2], o->ne[3], o->nb[1], o->nb[2], o->nb[3], 0);
    } else {
      const Node weights = ggml_soft_max_ext(ctx, ggml_mul_mat(ctx, k, q), nullptr, scale, 0);
      o = heads_first(ggml_mul_mat(ctx, tokens_first(v), weights));
    }
    return ggml_cont_2d(ctx, o, config_.hidden_size, rows());
  }

  Node linear_attention(Node x) {
    const Node q =
        ggml_cont(ctx, heads_first(split(features(linear("attn.q", x)))));       // (d, tokens, heads, batch)
    const Node k = tokens_first(split(features(linear_part("attn.kv", x, 0))));  // (tokens, d, heads, batch)
    const Node v = linear_part("attn.kv", x, 1);                                 // (width, rows)
    const Node memory = ggml_mul_mat(ctx, k, tokens_first(split(v)));  // (d of k, d of v, heads, batch)
    const Node sum = ggml_reshape_4d(ctx, ggml_sum_rows(ctx, k), head_width(), 1, config_.num_heads, batch_);
    Node o = ggml_div(ctx, ggml_mul_mat(ctx, memory, q), ggml_mul_mat(ctx, sum, q));
    o = heads_first(o);  // (d, heads, tokens, batch)
    if (config_.mixer == nn::Mixer::lit)
      o = ggml_add(ctx, ggml_add(ctx, depthwise_conv(v), weight("attn.dwc.bias")), o);
    else
      o = ggml_cont(ctx, o);
    return ggml_reshape_2d(ctx, o, config_.hidden_size, rows());
  }

  // With the channels fastest, which is how they come, ggml's direct convolution works on whole vectors of
  // them.
  Node depthwise_conv(Node v) {
    const int64_t grid = config_.grid();
    const Node image =
        ggml_permute(ctx, ggml_reshape_4d(ctx, v, config_.hidden_size, grid, grid, batch_), 2, 0, 1, 3);
    const Node kernel = ggml_permute(ctx, weight("attn.dwc.weight"), 3, 2, 0, 1);  // (5, 5, 1, width)
    const int pad = dwc_side / 2;
    const Node out = ggml_conv_2d_dw_direct(ctx, kernel, image, 1, 1, pad, pad, 1, 1);
    return split(ggml_permute(ctx, out, 1, 2, 0, 3));
  }

  Node features(Node x) { return ggml_scale_bias(ctx, ggml_relu(ctx, x), 1, feature_epsilon); }

  // (width, grid, grid, batch), both ways between the picture and its patches
  Node patch_embed(Node x) {
    const int patch = static_cast<int>(config_.patch_size);
    Node h = ggml_conv_2d(ctx, weights_.at("x_embedder.proj.weight"), x, patch, patch, 0, 0, 1, 1);
    h = ggml_reshape_3d(ctx, h, config_.tokens(), config_.hidden_size, batch_);
    h = ggml_cont(ctx, ggml_permute(ctx, h, 1, 0, 2, 3));  // (width, tokens, batch)
    h = ggml_add(ctx, h, weights_.at("x_embedder.proj.bias"));
    return flat(ggml_add(ctx, h, weights_.at("pos_embed")));
  }

  Node unpatchify(Node x) {
    const int64_t patch = config_.patch_size, grid = config_.grid(), channels = config_.out_channels();
    x = ggml_reshape_4d(ctx, x, channels * patch, patch, grid,
                        grid * batch_);                    // (channel, column), row, x, (y, batch)
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3));  // (channel, column), x, row, (y, batch)
    x = ggml_reshape_4d(ctx, x, channels, config_.input_size, config_.input_size, batch_);
    return ggml_cont(ctx, ggml_permute(ctx, x, 2, 0, 1, 3));
  }

  Node condition(Node t, Node y) {
    prefix_ = "t_embedder.";
    const Node waves = ggml_timestep_embedding(ctx, t, frequency_width, longest_period);
    const Node time = linear("mlp.2", ggml_silu(ctx, linear("mlp.0", waves)));
    return ggml_add(ctx, time, ggml_get_rows(ctx, weights_.at("y_embedder.embedding_table.weight"), y));
  }

  // m (n · width, batch) holds the shift in chunk `first`, the scale in the one after it.
  Node norm_modulate(Node x, Node m, int first) {
    const Node scale = ggml_scale_bias(ctx, ggml_cont(ctx, chunk(m, first + 1)), 1, 1);
    const Node normed = by_picture(ggml_norm(ctx, x, norm_epsilon));
    return flat(ggml_add(ctx, ggml_mul(ctx, normed, scale), chunk(m, first)));
  }

  Node gated_residual(Node x, Node m, int gate, Node branch) {
    return ggml_add(ctx, x, flat(ggml_mul(ctx, by_picture(branch), chunk(m, gate))));
  }

  Node linear(const std::string& name, Node x) {
    return ggml_add(ctx, ggml_mul_mat(ctx, weight(name + ".weight"), x), weight(name + ".bias"));
  }

  // One half of a joint layer's outputs, as a tensor of its own.
  Node linear_part(const std::string& name, Node x, size_t half) {
    const int64_t width = config_.hidden_size;
    const Node w = weight(name + ".weight"), b = weight(name + ".bias");
    const auto first = half * static_cast<size_t>(width);
    const Node product =
        ggml_mul_mat(ctx, ggml_view_2d(ctx, w, w->ne[0], width, w->nb[1], first * w->nb[1]), x);
    return ggml_add(ctx, product, ggml_view_1d(ctx, b, width, first * b->nb[0]));
  }

  Node weight(const std::string& name) const { return weights_.at(prefix_ + name); }
  int64_t rows() const { return config_.tokens() * batch_; }
  int64_t head_width() const { return config_.hidden_size / config_.num_heads; }

  /// (n, rows) <-> (n, tokens, batch)
  Node by_picture(Node x) { return ggml_reshape_3d(ctx, x, x->ne[0], config_.tokens(), batch_); }
  Node flat(Node x) { return ggml_reshape_2d(ctx, x, x->ne[0], rows()); }

  /// Chunk i of (n · width, batch) as (width, 1, batch), which spreads over tokens.
  Node chunk(Node m, int i) {
    const int64_t width = config_.hidden_size;
    return ggml_view_3d(ctx, m, width, 1, batch_, m->nb[1], m->nb[1],
                        static_cast<size_t>(i) * static_cast<size_t>(width) * sizeof(float));
  }

  /// (width, rows) as (d, heads, tokens, batch)
  Node split(Node x) {
    return ggml_reshape_4d(ctx, x, head_width(), config_.num_heads, config_.tokens(), batch_);
  }

  /// q, k or v of (3 · width, rows) as (d, heads, tokens, batch)
  Node part(Node qkv, size_t i) {
    const auto width = static_cast<size_t>(config_.hidden_size);
    return ggml_view_4d(ctx, qkv, head_width(), config_.num_heads, config_.tokens(), batch_,
                        static_cast<size_t>(head_width()) * sizeof(float), qkv->nb[1],
                        qkv->nb[1] * static_cast<size_t>(config_.tokens()), i * width * sizeof(float));
  }

  /// (d, a, b, batch) -> (d, b, a, batch), a view
  Node heads_first(Node x) { return ggml_permute(ctx, x, 0, 2, 1, 3); }
  /// (d, heads, tokens, batch) -> (tokens, d, heads, batch), a copy
  Node tokens_first(Node x) { return ggml_cont(ctx, ggml_permute(ctx, x, 1, 2, 0, 3)); }

  Node padded(Node x) {
    const auto missing = static_cast<int>((16 - x->ne[0] % 16) % 16);
    return missing ? ggml_pad(ctx, x, missing, 0, 0, 0) : ggml_cont(ctx, x);
  }

  ggml_context* ctx;
  const std::unordered_map<std::string, ggml_tensor*>& weights_;
  const DiTConfig& config_;
  Attention attention_;
  int64_t batch_;
  std::string prefix_;
};

bool is_dwc(const std::string& name) { return name.ends_with("attn.dwc.weight"); }

bool is_block_matrix(const std::string& name) {
  return name.starts_with("blocks.") && name.ends_with(".weight") && !is_dwc(name);
}

/// (d, 1, 5, 5), shared by the heads, as (5, 5, width): a copy a head, channels fastest.
Tensor spread_over_heads(const Tensor& filters, int64_t width) {
  const int64_t taps = filters.size(2) * filters.size(3), d = filters.size(0);
  Tensor result = Tensor::empty({filters.size(2), filters.size(3), width});
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int64_t channel = 0; channel < width; ++channel)
      result.mutable_data<float>()[tap * width + channel] = filters.data<float>()[channel % d * taps + tap];
  return result;
}

Node declare(ggml_context* ctx, const std::string& name, const Shape& shape, ggml_type dtype, int64_t width) {
  if (is_dwc(name)) return ggml_new_tensor_4d(ctx, GGML_TYPE_F32, width, 1, shape[3], shape[2]);
  int64_t sizes[GGML_MAX_DIMS] = {};
  for (int i = 0; i < shape.rank(); ++i) sizes[i] = shape[shape.rank() - 1 - i];
  return ggml_new_tensor(ctx, is_block_matrix(name) ? dtype : GGML_TYPE_F32, shape.rank(), sizes);
}

void fill(Node node, const Tensor& value) {
  check(ggml_nelements(node) == value.numel(), "{} has {} elements, ggml's tensor {}", node->name,
        value.numel(), ggml_nelements(node));
  const Tensor plain = value.to(DType::f32);
  if (node->type == GGML_TYPE_F32) return ggml_backend_tensor_set(node, plain.raw(), 0, ggml_nbytes(node));
  std::vector<uint16_t> half(static_cast<size_t>(value.numel()));
  if (node->type == GGML_TYPE_BF16)
    ggml_fp32_to_bf16_row(plain.data<float>(), reinterpret_cast<ggml_bf16_t*>(half.data()), value.numel());
  else
    ggml_fp32_to_fp16_row(plain.data<float>(), half.data(), value.numel());
  ggml_backend_tensor_set(node, half.data(), 0, ggml_nbytes(node));
}

/// Those that compute in the CPU's memory: BLAS and the like first, then the CPU's own, which knows every
/// operation.
std::vector<ggml_backend_ptr> open_backends() {
  std::vector<ggml_backend_ptr> backends;
  for (const auto type : {GGML_BACKEND_DEVICE_TYPE_ACCEL, GGML_BACKEND_DEVICE_TYPE_CPU})
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i)
      if (ggml_backend_dev_t device = ggml_backend_dev_get(i); ggml_backend_dev_type(device) == type)
        backends.emplace_back(ggml_backend_dev_init(device, nullptr));
  check(!backends.empty() && ggml_backend_is_cpu(backends.back().get()), "ggml has no CPU backend");
  return backends;
}

void use_threads(ggml_backend_t backend, int threads) {
  const ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
  void* address = ggml_backend_reg_get_proc_address(registry, "ggml_backend_set_n_threads");
  if (address) reinterpret_cast<ggml_backend_set_n_threads_t>(address)(backend, threads);
}

}  // namespace

GgmlDiT::GgmlDiT(DiT& model, ggml_type dtype, int threads)
    : config_(model.config()), backends_(open_backends()) {
  for (const ggml_backend_ptr& backend : backends_) use_threads(backend.get(), threads);
  copy_weights(model, dtype);
}

void GgmlDiT::copy_weights(DiT& model, ggml_type dtype) {
  std::unordered_map<std::string, Tensor> values;
  model.visit("", [&](const std::string& name, nn::Parameter& p) {
    values[name] = is_dwc(name) ? spread_over_heads(p.value, config_.hidden_size) : p.value;
  });
  weights_context_ = make_context(ggml_tensor_overhead() * values.size());
  model.visit("", [&](const std::string& name, nn::Parameter& p) {
    weights_[name] = declare(weights_context_.get(), name, p.shape, dtype, config_.hidden_size);
    ggml_set_name(weights_[name], name.c_str());
  });
  weights_buffer_.reset(ggml_backend_alloc_ctx_tensors(weights_context_.get(), backends_.back().get()));
  check(weights_buffer_ != nullptr, "ggml found no memory for the weights");
  for (const auto& [name, value] : values) fill(weights_.at(name), value);
}

void GgmlDiT::plan(Attention attention, const Tensor& x, const Tensor& t, const Tensor& y) {
  const int64_t batch = x.size(0);
  inputs_context_ = make_context(ggml_tensor_overhead() * 3);
  const Node pictures =
      ggml_new_tensor_4d(inputs_context_.get(), GGML_TYPE_F32, x.size(3), x.size(2), x.size(1), batch);
  const Node times = ggml_new_tensor_1d(inputs_context_.get(), GGML_TYPE_F32, batch);
  const Node classes = ggml_new_tensor_1d(inputs_context_.get(), GGML_TYPE_I32, batch);
  inputs_buffer_.reset(ggml_backend_alloc_ctx_tensors(inputs_context_.get(), backends_.back().get()));
  check(inputs_buffer_ != nullptr, "ggml found no memory for the inputs");

  graph_context_ =
      make_context(ggml_tensor_overhead() * most_nodes + ggml_graph_overhead_custom(most_nodes, false));
  ggml_context* ctx = graph_context_.get();
  const Node out = GraphWriter(ctx, weights_, config_, attention, batch).forward(pictures, times, classes);
  ggml_set_output(out);
  graph_ = ggml_new_graph_custom(ctx, most_nodes, false);
  ggml_build_forward_expand(graph_, out);
  std::vector<ggml_backend_t> backends;
  for (const ggml_backend_ptr& backend : backends_) backends.push_back(backend.get());
  scheduler_.reset(ggml_backend_sched_new(backends.data(), nullptr, static_cast<int>(backends.size()),
                                          most_nodes, false, false));
  check(ggml_backend_sched_alloc_graph(scheduler_.get(), graph_), "ggml found no memory for the activations");

  const std::vector<int32_t> indices(y.data<int64_t>(), y.data<int64_t>() + batch);
  ggml_backend_tensor_set(pictures, x.data<float>(), 0, ggml_nbytes(pictures));
  ggml_backend_tensor_set(times, t.data<float>(), 0, ggml_nbytes(times));
  ggml_backend_tensor_set(classes, indices.data(), 0, ggml_nbytes(classes));
}

void GgmlDiT::forward() {
  check(ggml_backend_sched_graph_compute(scheduler_.get(), graph_) == GGML_STATUS_SUCCESS,
        "ggml could not compute the graph");
}

Tensor GgmlDiT::output() const {
  const ggml_tensor* out = ggml_graph_node(graph_, -1);
  Tensor result = Tensor::empty({out->ne[3], out->ne[2], out->ne[1], out->ne[0]});
  ggml_backend_tensor_get(out, result.mutable_raw(), 0, ggml_nbytes(out));
  return result;
}

std::string GgmlDiT::backends() const {
  std::string names;
  for (const ggml_backend_ptr& backend : backends_)
    names += (names.empty() ? "" : " + ") + std::string(ggml_backend_name(backend.get()));
  return names;
}

}  // namespace linnet::peer
