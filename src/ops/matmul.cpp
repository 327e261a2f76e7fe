#include "ops/matmul.h"

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "core/parallel.h"
#include "ops/cast.h"
#include "ops/gpu_kernels.h"
#include "ops/onednn.h"

namespace linnet::ops {
namespace {

using namespace onednn;

memory::desc describe(const MatrixView& view) {
  return {{view.rows, view.columns}, data_type_of(view.dtype), {view.row_stride, view.column_stride}};
}

dnnl::primitive_attr attributes(Activation activation, bool accumulate) {
  dnnl::post_ops post;
  if (accumulate) post.append_sum(1.0f);
  if (activation == Activation::gelu_tanh) {
#if DNNL_VERSION_MAJOR >= 3
    post.append_eltwise(dnnl::algorithm::eltwise_gelu_tanh, 0.0f, 0.0f);
#else
    post.append_eltwise(1.0f, dnnl::algorithm::eltwise_gelu_tanh, 0.0f, 0.0f);
#endif
  }
  dnnl::primitive_attr result;
  result.set_post_ops(post);
  return result;
}

memory::desc describe_bias(const Tensor& bias, int64_t columns) {
  if (!bias.defined()) return {};
  return {{1, columns}, memory::data_type::f32, {columns, 1}};
}

void execute(const dnnl::matmul& primitive, const memory& a, const memory& b, const Tensor& bias,
             const memory::desc& bias_desc, const memory& c) {
  std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}};
  if (bias.defined()) arguments.emplace(DNNL_ARG_BIAS, wrap(bias_desc, bias.raw()));
  run(primitive, std::move(arguments));
}

// Inside a parallel loop a product has the thread that it is called on.
int threads_here() { return omp_in_parallel() ? 1 : threads(); }

// What a primitive depends on: shapes, strides, types, what is fused, and the threads it was made for.
using Key =
    std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int, int, bool, int, bool, int>;

// Primitives are dear to make: each is kept under its key.
template <class Primitive, class PrimitiveKey, class Make>
Primitive cached(const PrimitiveKey& key, Make make) {
  static std::mutex mutex;
  static auto* const primitives = new std::map<PrimitiveKey, Primitive>;
  const std::scoped_lock lock(mutex);
  if (auto found = primitives->find(key); found != primitives->end()) return found->second;
  if (primitives->size() > 4096) primitives->clear();
  expect_room_for_code();
  return primitives->emplace(key, translated(make)).first->second;
}

void check_output(const Tensor& into, int64_t rows, int64_t columns, const Tensor& bias) {
  check(into.shape().rank() > 0 && into.numel() == rows * columns && into.shape()[-1] == columns,
        "a product of {} rows and {} columns does not fit shape {}", rows, columns, to_string(into.shape()));
  check(!bias.defined() || bias.numel() == columns, "a bias of shape {} does not fit {} outputs",
        to_string(bias.shape()), columns);
}

MatmulOptions with_f32_bias(MatmulOptions options) {
  if (options.bias.defined()) options.bias = cast(options.bias.detach(), DType::f32);
  return options;
}

// No library makes a 16-bit result of f32 operands: such a product is made in f32 and then rounded.
template <class Product>
void round_from_f32(Tensor& into, bool accumulate, Product product) {
  Tensor wide =
      accumulate ? into.to(DType::f32).detach() : Tensor::empty(into.shape(), DType::f32, into.device());
  product(wide);
  if (into.on_gpu()) return gpu().convert(wide.view(), into.view(), into.numel());
  const Tensor rounded = cast(wide, into.dtype());
  std::memcpy(into.mutable_raw(), rounded.raw(), into.bytes());
}

std::atomic<bool> tf32_allowed = false;

void matmul_on_gpu(const MatrixView& a, const MatrixView& b, Tensor& into, const MatmulOptions& options) {
  const Tensor& given = options.bias;
  const Tensor bias = given.defined() ? given.detach().to(into.device()).to(into.dtype()) : Tensor();
  gpu_kernels().product.matmul(a, b, bias.view(), options.activation, options.accumulate, tf32_allowed,
                               into.view());
}

}  // namespace

MatrixView as_matrix(const Tensor& tensor) {
  const int64_t columns = tensor.shape()[-1];
  return {tensor.address(), tensor.dtype(), tensor.shape().rows(), columns, columns, 1};
}

void matmul(const MatrixView& a, const MatrixView& b, Tensor& into, const MatmulOptions& given) {
  check(a.columns == b.rows, "a product of ({}, {}) and ({}, {}) does not exist", a.rows, a.columns, b.rows,
        b.columns);
  check(a.dtype == b.dtype, "a product of {} and {} does not exist", name_of(a.dtype), name_of(b.dtype));
  check_output(into, a.rows, b.columns, given.bias);
  if (into.numel() == 0) return;
  if (a.dtype == DType::f32 && into.dtype() != DType::f32)
    return round_from_f32(into, given.accumulate, [&](Tensor& wide) { matmul(a, b, wide, given); });
  if (into.on_gpu()) return matmul_on_gpu(a, b, into, given);
  const MatmulOptions options = with_f32_bias(given);
  const MatrixView c{into.mutable_raw(), into.dtype(), a.rows, b.columns, b.columns, 1};
  const memory::desc bias_desc = describe_bias(options.bias, b.columns);
  const Key key{a.rows,
                a.columns,
                b.columns,
                a.row_stride,
                a.column_stride,
                b.row_stride,
                b.column_stride,
                static_cast<int>(a.dtype),
                static_cast<int>(b.dtype) * 16 + static_cast<int>(c.dtype),
                options.bias.defined(),
                static_cast<int>(options.activation),
                options.accumulate,
                threads_here()};
  const auto primitive = cached<dnnl::matmul>(key, [&] {
    return dnnl::matmul(make_descriptor(describe(a), describe(b), bias_desc, describe(c),
                                        attributes(options.activation, options.accumulate)));
  });
  execute(primitive, wrap(describe(a), a.data), wrap(describe(b), b.data), options.bias, bias_desc,
          wrap(describe(c), c.data));
}

namespace {

dnnl::inner_product_backward_weights make_weight_gradient(const memory::desc& x, const memory::desc& weight,
                                                          const memory::desc& dw, const memory::desc& g) {
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::inner_product_forward::primitive_desc forward(engine(), dnnl::prop_kind::forward_training, x,
                                                            weight, g);
  return {{engine(), x, dw, g, forward, with_own_memory()}};
#else
  const dnnl::inner_product_forward::primitive_desc forward({dnnl::prop_kind::forward_training, x, weight, g},
                                                            engine());
  return {{{x, dw, g}, with_own_memory(), engine(), forward}};
#endif
}

}  // namespace

void weight_gradient(const MatrixView& g, const MatrixView& x, Tensor& into) {
  check(g.rows == x.rows && g.dtype == DType::bf16 && x.dtype == DType::bf16 && into.dtype() == DType::f32,
        "a weight's gradient is f32 and comes of bf16 with as many rows");
  check_output(into, g.columns, x.columns, {});
  const memory::desc x_desc = describe(x), g_desc = describe(g);
  const memory::dims dims{g.columns, x.columns};
  const memory::desc weight_desc(dims, memory::data_type::bf16, memory::format_tag::any);
  const memory::desc into_desc(dims, memory::data_type::f32, memory::format_tag::ab);
  const auto primitive = cached<dnnl::inner_product_backward_weights>(
      std::tuple{g.rows, g.columns, x.columns, threads_here()},
      [&] { return make_weight_gradient(x_desc, weight_desc, into_desc, g_desc); });
  run(primitive, {{DNNL_ARG_SRC, wrap(x_desc, x.data)},
                  {DNNL_ARG_DIFF_DST, wrap(g_desc, g.data)},
                  {DNNL_ARG_DIFF_WEIGHTS, wrap(into_desc, into.mutable_raw())}});
}

struct PackedWeight::State {
  Tensor weight;  // (out, in), in the product type; freed once packed, which on a GPU it never is
  DType dtype;
  Device device;
  int64_t in, out;
  std::once_flag once;
  memory packed;
  std::mutex mutex;
  using Use = std::tuple<int64_t, int64_t, int, bool, int, bool, int>;
  static constexpr size_t most_prepared = 64;  // a sampler needs a few; texts come in hundreds of lengths
  std::map<Use, dnnl::matmul> prepared;

  memory::desc plain() const { return {{in, out}, data_type_of(dtype), {1, in}}; }

  // The layout is chosen for the first number of rows seen; oneDNN's choice hardly depends on it.
  void pack(const MatrixView& x, const memory::desc& c) {
    const memory::desc any({in, out}, data_type_of(dtype), memory::format_tag::any);
    const auto descriptor = make_descriptor(describe(x), any, {}, c, {});
    packed = memory(descriptor.weights_desc(), engine());
    memory source = wrap(plain(), weight.raw());
    dnnl::reorder(source, packed).execute(stream(), source, packed);
    stream().wait();
    weight = {};
  }

  dnnl::matmul prepare(const MatrixView& x, const MatrixView& c, const memory::desc& bias,
                       const MatmulOptions& options) {
    const std::scoped_lock lock(mutex);
    const Use use{x.rows,
                  x.row_stride,
                  static_cast<int>(c.dtype),
                  options.bias.defined(),
                  static_cast<int>(options.activation),
                  options.accumulate,
                  threads_here()};
    if (const auto found = prepared.find(use); found != prepared.end()) return found->second;
    const dnnl::matmul made(make_descriptor(describe(x), packed.get_desc(), bias, describe(c),
                                            attributes(options.activation, options.accumulate)));
    if (prepared.size() >= most_prepared) prepared.clear();
    return prepared.emplace(use, made).first->second;
  }
};

PackedWeight::PackedWeight(const Tensor& weight, DType dtype) : state_(std::make_shared<State>()) {
  check(weight.shape().rank() == 2, "a linear layer's weight has two dimensions, not shape {}",
        to_string(weight.shape()));
  state_->weight = cast(weight.detach(), dtype);
  state_->dtype = dtype;
  state_->device = weight.device();
  state_->out = weight.size(0);
  state_->in = weight.size(1);
}

DType PackedWeight::dtype() const { return state_->dtype; }
const Device& PackedWeight::device() const { return state_->device; }
int64_t PackedWeight::in_features() const { return state_->in; }
int64_t PackedWeight::out_features() const { return state_->out; }

size_t PackedWeight::prepared() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->prepared.size();
}

void PackedWeight::apply(const MatrixView& x, Tensor& into, const MatmulOptions& given) const {
  State& state = *state_;
  check(x.columns == state.in, "a linear layer of {} inputs got {}", state.in, x.columns);
  check(x.dtype == state.dtype, "a linear layer packed as {} got {}", name_of(state.dtype), name_of(x.dtype));
  check_output(into, x.rows, state.out, given.bias);
  check(into.device() == state.device, "a linear layer on {} was to work on {}", to_string(state.device),
        to_string(into.device()));
  if (into.numel() == 0) return;
  if (into.on_gpu()) return matmul(x, as_matrix(state.weight).transposed(), into, given);
  if (x.dtype == DType::f32 && into.dtype() != DType::f32)
    return round_from_f32(into, given.accumulate, [&](Tensor& wide) { apply(x, wide, given); });
  const MatmulOptions options = with_f32_bias(given);
  const MatrixView c{into.mutable_raw(), into.dtype(), x.rows, state.out, state.out, 1};
  const memory::desc bias_desc = describe_bias(options.bias, state.out);
  const dnnl::matmul primitive = translated([&] {
    std::call_once(state.once, [&] { state.pack(x, describe(c)); });
    return state.prepare(x, c, bias_desc, options);
  });
  execute(primitive, wrap(describe(x), x.data), state.packed, options.bias, bias_desc,
          wrap(describe(c), c.data));
}

void set_tf32(bool allowed) { tf32_allowed = allowed; }
bool tf32_is_allowed() { return tf32_allowed; }

DType fastest_product_dtype(const Device& device) {
  if (device.is_gpu()) return open_gpu(device).info.architecture >= 80 ? DType::bf16 : DType::f16;
  return have(dnnl::cpu_isa::avx512_core_bf16) ? DType::bf16 : DType::f32;
}

// oneDNN is asked itself: what it takes depends on its version as well. 2.6 multiplies bf16 on x86 with
// AVX-512, also where that has no instructions for it, and refuses without.
bool have_bf16_products() {
  static const bool result = [] {
    expect_room_for_code();  // a lack of that says nothing of bf16
    const auto one = [](memory::data_type type) { return memory::desc({1, 1}, type, memory::format_tag::ab); };
    const memory::desc bf16 = one(memory::data_type::bf16);
    try {
      (void)make_descriptor(bf16, bf16, {}, one(memory::data_type::f32), {});
      return true;
    } catch (const Error&) {
      return false;
    }
  }();
  return result;
}

DType product_dtype_from_name(std::string_view name, const Device& device) {
  if (name == "auto") return fastest_product_dtype(device);
  if (name == "f32") return DType::f32;
  if (name == "bf16" && !device.is_gpu() && !have_bf16_products())
    throw UsageError("this processor has no products in bf16, which on x86 take AVX-512: choose f32 or auto");
  if (name == "bf16") return DType::bf16;
  if (name == "int8") return DType::i8;
  if (name != "f16" && name != "tf32")
    throw UsageError(
        fmt::format("products are in f32, bf16, int8 or auto, on a GPU also in f16 or tf32, not \"{}\"", name));
  if (!device.is_gpu())
    throw UsageError(fmt::format("products in {} are a GPU's: a CPU has f32, bf16 and int8", name));
  if (name == "f16") return DType::f16;
  set_tf32(true);
  return DType::f32;
}

std::string name_of_products(DType dtype, const Device& device) {
  if (dtype == DType::i8) return "int8";
  const bool rounded = device.is_gpu() && dtype == DType::f32 && tf32_allowed;
  return rounded ? "tf32" : std::string(name_of(dtype));
}

std::string matmul_engine_name(const Device& device) {
  if (device.is_gpu()) {
    const GpuApi& api = open_gpu(device);
    return fmt::format("{}, {}", api.kernels->product.engine(), api.info.name);
  }
  const dnnl_version_t* version = dnnl_version();
  const bool bf16 = fastest_product_dtype() == DType::bf16;
  return fmt::format("oneDNN {}.{}.{}, {}", version->major, version->minor, version->patch,
                     bf16 ? "bf16 instructions" : "no bf16 instructions");
}

}  // namespace linnet::ops
