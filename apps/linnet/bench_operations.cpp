#include "bench_operations.h"

#include <optional>

#include "bench_device.h"
#include "bench_random.h"
#include "core/tape.h"
#include "ops/activation.h"
#include "ops/adamw.h"
#include "ops/cast.h"
#include "ops/depthwise_conv_cpu.h"
#include "ops/focused_map.h"
#include "ops/gated_residual.h"
#include "ops/layer_norm_modulate.h"
#include "ops/linear_attention.h"
#include "ops/softmax_attention.h"

namespace linnet::app {
namespace {

// Weights are met once a pass in a model, so a layer timed alone must not find them in the cache.
constexpr double beyond_caches = 96.0 * (1 << 20);

struct Shapes {
  int64_t batch, tokens, width, heads, grid, depth;
  DType dtype;  // of what goes into products
  bool int8;    // matrices in 8 bits
  double elements() const { return static_cast<double>(batch * tokens * width); }
  double attention_flops(nn::Mixer mixer) const {
    return static_cast<double>(batch) * nn::attention_flops(mixer, width, heads, tokens, tokens);
  }
  double type_bytes() const { return static_cast<double>(size_of(dtype)); }
};

Shapes shapes_of(const DiTConfig& config, int64_t batch, DType dtype) {
  const bool int8 = dtype == DType::i8;
  return {batch,
          config.tokens(),
          config.hidden_size,
          config.num_heads,
          config.grid(),
          config.depth,
          int8 ? ops::fastest_product_dtype(bench_device()) : dtype,
          int8};
}

Tensor leaf(Tensor tensor, std::vector<Tensor>& leaves) {
  tensor.set_requires_grad(true);
  leaves.push_back(tensor);
  return tensor;
}

struct LinearCase {
  std::string name;
  int64_t rows, in, out;
  ops::Activation activation = ops::Activation::none;
  DType out_dtype;
};

// Several layers in turn, each with weights of its own.
struct LayerRing {
  std::vector<nn::Linear> layers;
  size_t next = 0;
  const nn::Linear& take() { return layers[next++ % layers.size()]; }
};

nn::Linear random_layer(int64_t in, int64_t out, const Shapes& s, std::vector<Tensor>& leaves) {
  nn::Linear layer(in, out);
  for (nn::Parameter* parameter : {&layer.weight, &layer.bias}) {
    fill_random(*parameter);
    parameter->frozen = true;
    leaf(parameter->value, leaves);
    parameter->value = leaves.back();
  }
  if (s.int8) nn::quantize(layer.weight);
  return layer;
}

Operation linear_operation(const LinearCase& c, const Shapes& s) {
  Operation op;
  op.name = c.name;
  op.shape = fmt::format("{}×{}×{}", c.rows, c.in, c.out);
  op.calls = static_cast<double>(s.depth);
  const auto rows = static_cast<double>(c.rows), in = static_cast<double>(c.in),
             out = static_cast<double>(c.out);
  op.flops = 2 * rows * in * out;
  op.backward_flops = 2 * op.flops;
  op.in_products = true;
  const double weight_bytes = (s.int8 ? 1.0 : s.type_bytes()) * in * out;
  op.bytes = s.type_bytes() * rows * in + weight_bytes + static_cast<double>(size_of(c.out_dtype)) * rows * out;
  op.backward_bytes = s.type_bytes() * (2 * rows * in + in * out + rows * out) + 4 * in * out;
  const auto ring = std::make_shared<LayerRing>();
  const auto count = std::clamp<int64_t>(static_cast<int64_t>(beyond_caches / weight_bytes), 1, s.depth);
  for (int64_t i = 0; i < count; ++i) ring->layers.push_back(random_layer(c.in, c.out, s, op.leaves));
  const Tensor x = leaf(random_tensor({c.rows, c.in}, 1.0f, s.dtype), op.leaves);
  op.forward = [ring, x, c] { return ring->take().forward(x, c.out_dtype, c.activation); };
  return op;
}

// Both layers, of which a GPU's products do what lies between them.
Operation feed_forward_operation(const Shapes& s, int64_t hidden) {
  const int64_t rows = s.batch * s.tokens;
  Operation op{.name = "MLP, both layers", .shape = fmt::format("{}×{}×{}", rows, s.width, hidden)};
  op.calls = static_cast<double>(s.depth);
  const double weights = 2.0 * static_cast<double>(s.width * hidden),
               inner = static_cast<double>(rows * hidden);
  op.flops = 2 * static_cast<double>(rows) * weights;
  op.backward_flops = 2 * op.flops;
  op.bytes = s.type_bytes() * (2 * s.elements() + 2 * inner + weights);
  op.backward_bytes = s.type_bytes() * (3 * s.elements() + 4 * inner + weights) + 4 * weights;
  const auto first = std::make_shared<nn::Linear>(random_layer(s.width, hidden, s, op.leaves)),
             second = std::make_shared<nn::Linear>(random_layer(hidden, s.width, s, op.leaves));
  const Tensor x = leaf(random_tensor({rows, s.width}, 1.0f, s.dtype), op.leaves);
  op.forward = [=, dtype = s.dtype] { return nn::feed_forward(*first, *second, x, dtype); };
  return op;
}

Operation norm_operation(const Shapes& s) {
  Operation op{.name = "layer norm, modulated", .shape = fmt::format("{}×{}×{}", s.batch, s.tokens, s.width)};
  op.calls = 2.0 * static_cast<double>(s.depth);
  op.bytes = (4 + s.type_bytes()) * s.elements();
  op.backward_bytes = (4 + 4 + s.type_bytes()) * s.elements();
  const Tensor x = leaf(random_tensor({s.batch, s.tokens, s.width}, 1.0f), op.leaves);
  const Tensor shift = leaf(random_tensor({s.batch, s.width}, 0.1f), op.leaves);
  const Tensor scale = leaf(random_tensor({s.batch, s.width}, 0.1f), op.leaves);
  op.forward = [=] { return ops::layer_norm_modulate(x, shift, scale, 1e-6f, s.dtype); };
  return op;
}

Operation residual_operation(const Shapes& s) {
  Operation op{.name = "gated residual", .shape = fmt::format("{}×{}×{}", s.batch, s.tokens, s.width)};
  op.calls = 2.0 * static_cast<double>(s.depth);
  op.bytes = (4 + 4 + s.type_bytes()) * s.elements();
  op.backward_bytes = (4 + 2 * s.type_bytes()) * s.elements();  // the stream's own gradient passes through
  const Tensor x = leaf(random_tensor({s.batch, s.tokens, s.width}, 1.0f), op.leaves);
  const Tensor gate = leaf(random_tensor({s.batch, s.width}, 1.0f), op.leaves);
  const Tensor y = leaf(random_tensor({s.batch, s.tokens, s.width}, 1.0f, s.dtype), op.leaves);
  op.forward = [=] { return ops::gated_residual(x, gate, y); };
  return op;
}

// On q, or on k and the values behind it.
Operation focused_operation(const std::string& name, const Shapes& s, int64_t channels, nn::Mixer mixer) {
  Operation op{.name = name, .shape = fmt::format("{}×{}×{}", s.batch, s.tokens, channels)};
  op.calls = static_cast<double>(s.depth);
  const double bytes = s.type_bytes() * static_cast<double>(s.batch * s.tokens * channels);
  op.bytes = 2 * bytes;
  op.backward_bytes = 3 * bytes;
  const auto activation =
      mixer == nn::Mixer::focused_gelu ? ops::FocusedActivation::gelu : ops::FocusedActivation::relu;
  const Tensor x = leaf(random_tensor({s.batch, s.tokens, channels}, 1.0f, s.dtype), op.leaves);
  const Tensor scale = leaf(random_tensor({1, 1, s.width}, 0.1f), op.leaves);
  const Tensor positions =
      channels == s.width ? Tensor() : leaf(random_tensor({1, s.tokens, s.width}, 0.1f), op.leaves);
  op.forward = [=] { return ops::focused_map(x, scale, positions, activation); };
  return op;
}

Operation linear_attention_operation(const Shapes& s, ops::FeatureMap map) {
  Operation op{.name = "linear attention, sums",
               .shape = fmt::format("{}×{}×{}, {} heads", s.batch, s.tokens, s.width, s.heads)};
  op.calls = static_cast<double>(s.depth);
  op.flops = s.attention_flops(nn::Mixer::linear);
  op.backward_flops = 2 * op.flops;
  op.in_products = true;
  op.bytes = 4 * s.type_bytes() * s.elements();
  op.backward_bytes = 7 * s.type_bytes() * s.elements();
  const Tensor q = leaf(random_tensor({s.batch, s.tokens, s.width}, 1.0f, s.dtype), op.leaves);
  const Tensor kv = leaf(random_tensor({s.batch, s.tokens, 2 * s.width}, 1.0f, s.dtype), op.leaves);
  op.forward = [=] { return ops::linear_attention(q, kv, s.heads, map); };
  return op;
}

Operation softmax_attention_operation(const Shapes& s) {
  Operation op{.name = "softmax attention, sums",
               .shape = fmt::format("{}×{}×{}, {} heads", s.batch, s.tokens, s.width, s.heads)};
  op.calls = static_cast<double>(s.depth);
  op.flops = s.attention_flops(nn::Mixer::softmax);
  op.backward_flops = 2.5 * op.flops;  // the scores are computed again
  op.in_products = true;
  op.bytes = 4 * s.type_bytes() * s.elements();
  op.backward_bytes = 8 * s.type_bytes() * s.elements();
  const Tensor qkv = leaf(random_tensor({s.batch, s.tokens, 3 * s.width}, 1.0f, s.dtype), op.leaves);
  op.forward = [=] { return ops::softmax_attention(qkv, s.heads); };
  return op;
}

Operation attention_conv_operation(const Shapes& s, ops::FeatureMap map) {
  constexpr int64_t kernel = 5;
  Operation op = linear_attention_operation(s, map);
  op.name = "linear attention + convolution";
  Tensor q = op.leaves[0], kv = op.leaves[1];
  const int64_t filters = s.width / s.heads;
  const Tensor weight = leaf(random_tensor({filters, 1, kernel, kernel}, 0.2f), op.leaves);
  const Tensor bias = leaf(random_tensor({filters}, 0.2f), op.leaves);
  op.forward = [=] { return ops::linear_attention_conv(q, kv, weight, bias, s.heads, s.grid, s.grid, map); };
  return op;
}

// The convolution alone adds to what attention left, without an operation of its own: its kernels are timed.
Operation conv_operation(const Shapes& s) {
  constexpr int64_t kernel = 5;
  Operation op{.name = "depth-wise convolution",
               .shape = fmt::format("{}×{}×{}×{}, {}×{}", s.batch, s.grid, s.grid, s.width, kernel, kernel)};
  op.calls = static_cast<double>(s.depth);
  op.flops = 2.0 * kernel * kernel * s.elements();
  op.backward_flops = 2 * op.flops;
  op.bytes = 3 * s.type_bytes() * s.elements();
  op.backward_bytes = 4 * s.type_bytes() * s.elements();
  const int64_t filters = s.width / s.heads;
  const ops::cpu::TokenGrid grid{s.grid, s.grid};
  const Tensor kv = random_tensor({s.batch, s.tokens, 2 * s.width}, 1.0f, s.dtype);
  const Tensor weight = random_tensor({filters, 1, kernel, kernel}, 0.2f),
               bias = random_tensor({filters}, 0.2f);
  const Tensor g = random_tensor({s.batch, s.tokens, s.width}, 1e-3f, s.dtype);
  op.forward = [=, out = Tensor::zeros(g.shape(), s.dtype)]() mutable {
    ops::cpu::depthwise_conv_add(kv, weight, bias, grid, out);
    return out;
  };
  op.backward = [=, dkv = Tensor::zeros(kv.shape(), s.dtype), dweight = Tensor::zeros(weight.shape()),
                 dbias = Tensor::zeros({filters})]() mutable {
    ops::cpu::depthwise_conv_backward(g, kv, weight, grid, dkv, dweight, dbias);
  };
  return op;
}

// y = f(x) on the MLP's hidden values or the residual stream.
Operation pointwise_operation(const std::string& name, const Shape& shape, DType in, DType out,
                              const std::function<Tensor(const Tensor&)>& f) {
  Operation op{.name = name, .shape = to_string(shape)};
  const auto elements = static_cast<double>(shape.numel());
  op.bytes = static_cast<double>(size_of(in) + size_of(out)) * elements;
  op.backward_bytes = static_cast<double>(2 * size_of(in) + size_of(out)) * elements;
  const Tensor x = leaf(random_tensor(shape, 1.0f, in), op.leaves);
  op.forward = [=] { return f(x); };
  return op;
}

// What one call with a recording on needs, and what a backward pass starts from.
struct Recording {
  std::optional<Tape> tape;
  Tensor output, seed;

  void end(const Operation& op) {
    output = {};
    tape.reset();
    for (Tensor input : op.leaves) input.clear_grad();
  }
};

}  // namespace

std::vector<Operation> block_operations(const DiTConfig& config, int64_t batch, DType dtype) {
  const Shapes s = shapes_of(config, batch, dtype);
  const int64_t rows = batch * s.tokens, d = s.width, hidden = config.mlp_size();
  using ops::Activation;
  std::vector<Operation> list;
  list.push_back(linear_operation({"adaLN", batch, d, 6 * d, Activation::none, DType::f32}, s));
  list.push_back(norm_operation(s));
  if (config.mixer == nn::Mixer::softmax) {
    list.push_back(linear_operation({"attention, qkv", rows, d, 3 * d, Activation::none, s.dtype}, s));
    list.push_back(softmax_attention_operation(s));
  } else {
    list.push_back(linear_operation({"attention, q", rows, d, d, Activation::none, s.dtype}, s));
    list.push_back(linear_operation({"attention, kv", rows, d, 2 * d, Activation::none, s.dtype}, s));
    const bool focused = nn::is_focused(config.mixer);
    if (focused) {
      list.push_back(focused_operation("focused map, q", s, d, config.mixer));
      list.push_back(focused_operation("focused map, kv", s, 2 * d, config.mixer));
    }
    const auto map = focused ? ops::FeatureMap::none : ops::FeatureMap::relu;
    if (bench_device().is_gpu() && nn::has_convolution(config.mixer)) {
      list.push_back(attention_conv_operation(s, map));  // there it is one operation
    } else {
      list.push_back(linear_attention_operation(s, map));
      if (nn::has_convolution(config.mixer)) list.push_back(conv_operation(s));
    }
  }
  list.push_back(linear_operation({"attention, out", rows, d, d, Activation::none, s.dtype}, s));
  list.push_back(residual_operation(s));
  list.push_back(linear_operation({"MLP in + GELU", rows, d, hidden, Activation::gelu_tanh, s.dtype}, s));
  list.push_back(linear_operation({"MLP out", rows, hidden, d, Activation::none, s.dtype}, s));
  return list;
}

std::vector<Operation> further_operations(const DiTConfig& config, int64_t batch, DType dtype) {
  Shapes s = shapes_of(config, batch, dtype);
  std::vector<Operation> list;
  if (config.mixer != nn::Mixer::softmax && s.width % 64 == 0) {
    s.heads = s.width / 64;
    list.push_back(softmax_attention_operation(s));
  }
  list.push_back(feed_forward_operation(s, config.mlp_size()));
  const Shape hidden{batch, s.tokens, config.mlp_size()}, stream{batch, s.tokens, s.width};
  list.push_back(pointwise_operation("GELU", hidden, dtype, dtype, ops::gelu_tanh));
  list.push_back(pointwise_operation("SiLU", stream, DType::f32, dtype,
                                     [dtype](const Tensor& x) { return ops::silu(x, dtype); }));
  list.push_back(pointwise_operation("cast f32 to bf16", hidden, DType::f32, DType::bf16,
                                     [](const Tensor& x) { return ops::cast(x, DType::bf16); }));
  list.push_back(pointwise_operation("cast bf16 to f32", hidden, DType::bf16, DType::f32,
                                     [](const Tensor& x) { return ops::cast(x, DType::f32); }));
  for (Operation* cast : {&list[list.size() - 2], &list.back()})
    cast->leaves.clear();  // gradients just pass through
  return list;
}

Operation optimizer_operation(int64_t parameters) {
  const int64_t part = std::min<int64_t>(parameters, 16 << 20);  // beyond any cache, and no gigabytes
  Operation op{.name = "AdamW + average", .shape = fmt::format("{}", part)};
  op.calls = static_cast<double>(parameters) / static_cast<double>(part);
  op.bytes = 4.0 * 9 * static_cast<double>(part);  // five arrays read, four written
  const Tensor gradient = random_tensor({part}, 1e-3f), clip = Tensor::full({1}, 1.0f, bench_device());
  op.forward = [=, value = random_tensor({part}, 0.05f), mean = random_tensor({part}, 1e-3f),
                square = Tensor::full({part}, 1e-6f, bench_device()), ema = random_tensor({part}, 0.05f)] {
    ops::adamw_step({1e-6f, 0.9f, 0.999f, 1e-8f, 0.0f, 1000, 0.9999f}, clip,
                    {{value, gradient, mean, square, ema}});
    return value;
  };
  return op;
}

Work inference_work(const Operation& operation, double least) {
  return {.run = [operation] { operation.forward(); }, .least = least};
}

Work recorded_work(const Operation& operation, double least) {
  const auto state = std::make_shared<Recording>();
  return {.run = [=] { state->output = operation.forward(); },
          .prepare = [=] { state->tape.emplace(); },
          .finish = [=] { state->end(operation); },
          .least = least};
}

Work backward_work(const Operation& operation, double least) {
  if (operation.backward) return {.run = operation.backward, .least = least};
  const auto state = std::make_shared<Recording>();
  return {.run = [=] { state->tape->backward(state->output, state->seed); },
          .prepare =
              [=] {
                state->tape.emplace();
                state->output = operation.forward();
                if (!state->seed.defined())
                  state->seed = random_tensor(state->output.shape(), 1e-2f, state->output.dtype());
              },
          .finish = [=] { state->end(operation); },
          .least = least};
}

}  // namespace linnet::app
