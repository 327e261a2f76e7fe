#include "ops/conv2d.h"

#include <map>
#include <mutex>
#include <tuple>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/matmul.h"
#include "ops/onednn.h"

namespace linnet::ops {
namespace {

using namespace onednn;
using Dims = memory::dims;

dnnl::primitive_attr attributes(ConvActivation activation, bool accumulate) {
  dnnl::post_ops post;
  if (accumulate) post.append_sum(1.0f);
#if DNNL_VERSION_MAJOR >= 3
  if (activation == ConvActivation::relu) post.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#else
  if (activation == ConvActivation::relu) post.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#endif
  dnnl::primitive_attr result = with_own_memory();
  result.set_post_ops(post);
  return result;
}

using Descriptor = dnnl::convolution_forward::primitive_desc;

Descriptor make_conv(const memory::desc& x, const memory::desc& weight, const memory::desc& bias,
                     const memory::desc& y, const ConvWindow& window, const dnnl::primitive_attr& attr) {
  const auto kind = dnnl::prop_kind::forward_inference;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const Dims strides{window.stride, window.stride}, before{window.top, window.left},
      after{window.bottom, window.right};
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), kind, algorithm, x, weight, bias, y, strides, before, after, attr};
#else
  return {{kind, algorithm, x, weight, bias, y, strides, before, after}, attr, engine()};
#endif
}

// A primitive, and the layout of the weights that it wants.
struct Prepared {
  dnnl::convolution_forward primitive;
  memory weights;
};

using Key =
    std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int, int, bool, int>;

constexpr size_t most_prepared =
    64;  // shapes of one layer: a run has a few, a folder of pictures may have many

}  // namespace

struct PackedConv::State {
  Tensor weight, bias;  // weight as given; bias f32, zeros for want of one
  DType dtype;
  int64_t out, in, height, width;
  std::mutex mutex;
  std::map<Key, Prepared> prepared;  // on the CPU
  Tensor gpu_weight, gpu_bias;       // (out, height, width, in) and (out) in the product type

  memory::desc weight_desc(memory::format_tag layout, DType type) const {
    return {{out, in, height, width}, data_type_of(type), layout};
  }

  // Laid out as wanted: the copy that another shape uses already, or a new one.
  memory laid_out(const memory::desc& wanted) {
    for (const auto& [key, other] : prepared)
      if (other.weights.get_desc() == wanted) return other.weights;
    const Tensor plain = weight.host().to(DType::f32);
    memory source = wrap(weight_desc(memory::format_tag::oihw, DType::f32), plain.raw());
    memory result(wanted, engine());
    dnnl::reorder(source, result).execute(stream(), source, result);
    stream().wait();
    return result;
  }

  void prepare_on(const Device& device) {
    const std::scoped_lock lock(mutex);
    if (gpu_weight.defined()) return;
    const Tensor planes = weight.to(device);
    Tensor pixels = Tensor::empty({out, height, width, in}, dtype, device);
    gpu_kernels().picture.to_pixels(planes.view(), pixels.view(), out, in, height * width);
    gpu_bias = bias.to(device).to(dtype);
    gpu_weight = std::move(pixels);  // last: where memory ends before, it is all done again
  }

  Prepared prepare(const Tensor& x, const ConvWindow& window, ConvActivation activation, bool accumulate,
                   const Tensor& into) {
    const std::scoped_lock lock(mutex);
    const Key key{x.size(0),
                  x.size(1),
                  x.size(2),
                  window.stride,
                  window.top,
                  window.left,
                  window.bottom,
                  window.right,
                  static_cast<int>(into.dtype()),
                  static_cast<int>(activation),
                  accumulate,
                  threads()};
    if (const auto found = prepared.find(key); found != prepared.end()) return found->second;
    const Descriptor descriptor =
        make_conv(picture(x.shape(), dtype), weight_desc(memory::format_tag::any, dtype),
                  {{out}, memory::data_type::f32, memory::format_tag::x}, picture(into.shape(), into.dtype()),
                  window, attributes(activation, accumulate));
    expect_room_for_code();
    Prepared made{dnnl::convolution_forward(descriptor), laid_out(descriptor.weights_desc())};
    if (prepared.size() >= most_prepared) prepared.clear();
    return prepared.emplace(key, made).first->second;
  }
};

PackedConv::PackedConv(const Tensor& weight, const Tensor& bias, DType dtype)
    : state_(std::make_shared<State>()) {
  check(weight.shape().rank() == 4 && weight.numel() > 0,
        "a convolution's weight has four dimensions, not shape {}", to_string(weight.shape()));
  check(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16,
        "convolution works in f32, bf16 or f16, not {}", name_of(dtype));
  state_->weight = weight.detach();
  state_->out = weight.size(0);
  state_->in = weight.size(1);
  state_->height = weight.size(2);
  state_->width = weight.size(3);
  state_->dtype = dtype;
  check(!bias.defined() || bias.numel() == state_->out, "a bias of shape {} does not fit {} channels",
        bias.defined() ? to_string(bias.shape()) : "", state_->out);
  state_->bias =
      bias.defined() ? bias.detach().to(DType::f32) : Tensor::zeros({state_->out}, DType::f32, weight.device());
}

DType PackedConv::dtype() const { return state_->dtype; }

Shape PackedConv::shape_of_result(const Tensor& x, const ConvWindow& window) const {
  const State& s = *state_;
  check(x.shape().rank() == 4 && x.size(3) == s.in, "a convolution of {} channels got shape {}", s.in,
        to_string(x.shape()));
  check(x.dtype() == s.dtype, "a convolution packed as {} got {}", name_of(s.dtype), name_of(x.dtype()));
  const int64_t height = x.size(1) + window.top + window.bottom - s.height;
  const int64_t width = x.size(2) + window.left + window.right - s.width;
  check(height >= 0 && width >= 0, "a picture of {}x{} is smaller than a convolution's {}x{}", x.size(1),
        x.size(2), s.height, s.width);
  return {x.size(0), height / window.stride + 1, width / window.stride + 1, s.out};
}

Tensor PackedConv::placed(const Tensor& x) const { return x.on_gpu() ? x : x.to(state_->weight.device()); }

Tensor PackedConv::apply(const Tensor& given, const ConvWindow& window, DType out_dtype,
                         ConvActivation activation) const {
  const Tensor x = placed(given);
  Tensor result = Tensor::empty(shape_of_result(x, window), out_dtype, x.device());
  run(x, window, activation, false, result);
  return result;
}

Tensor PackedConv::add_to(Tensor sum, const Tensor& x, const ConvWindow& window) const {
  const Shape wanted = shape_of_result(x, window);
  check(sum.shape() == wanted, "a convolution's result of shape {} cannot be added to {}", to_string(wanted),
        to_string(sum.shape()));
  check(sum.device() == placed(x).device(), "a convolution's result on {} cannot be added to one on {}",
        to_string(placed(x).device()), to_string(sum.device()));
  run(placed(x), window, ConvActivation::none, true, sum);
  return sum;
}

void PackedConv::run(const Tensor& x, const ConvWindow& window, ConvActivation activation, bool accumulate,
                     Tensor& into) const {
  check_type("convolution", into);
  if (into.numel() == 0) return;
  if (into.on_gpu()) return run_on_gpu(x, window, activation, accumulate, into);
  const Prepared prepared =
      translated([&] { return state_->prepare(x, window, activation, accumulate, into); });
  const memory::desc bias({state_->out}, memory::data_type::f32, memory::format_tag::x);
  onednn::run(prepared.primitive,
              {{DNNL_ARG_SRC, wrap(picture(x.shape(), x.dtype()), x.raw())},
               {DNNL_ARG_WEIGHTS, prepared.weights},
               {DNNL_ARG_BIAS, wrap(bias, state_->bias.raw())},
               {DNNL_ARG_DST, wrap(picture(into.shape(), into.dtype()), into.mutable_raw())}});
}

// cuDNN's pictures, weight and bias are of one type: where the result's is another, all are f32.
void PackedConv::run_on_gpu(const Tensor& x, const ConvWindow& window, ConvActivation activation,
                            bool accumulate, Tensor& into) const {
  State& s = *state_;
  s.prepare_on(x.device());
  const GpuConv conv{.n = x.size(0),
                     .height = x.size(1),
                     .width = x.size(2),
                     .in = s.in,
                     .out = s.out,
                     .kernel_height = s.height,
                     .kernel_width = s.width,
                     .stride = window.stride,
                     .top = window.top,
                     .left = window.left,
                     .bottom = window.bottom,
                     .right = window.right,
                     .out_height = into.size(1),
                     .out_width = into.size(2),
                     .relu = activation == ConvActivation::relu,
                     .accumulate = accumulate,
                     .tf32 = tf32_is_allowed()};
  const auto convolve = [&](DType type, Tensor& y) {
    const Tensor operand = x.to(type), weight = s.gpu_weight.to(type), bias = s.gpu_bias.to(type);
    gpu_kernels().picture.conv(conv, operand.view(), weight.view(), bias.view(), y.view());
  };
  if (into.dtype() == x.dtype() || into.dtype() == DType::f32) return convolve(into.dtype(), into);
  Tensor wide = accumulate ? into.to(DType::f32) : Tensor::empty(into.shape(), DType::f32, into.device());
  convolve(DType::f32, wide);
  gpu().convert(wide.view(), into.view(), into.numel());
}

}  // namespace linnet::ops
