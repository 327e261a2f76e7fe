// Convolutions by cuDNN, which is loaded when the first one is wanted: it is large, and only the pictures' ends
// of a run need it. Of its ways of computing one, implicit products with precomputed offsets are those for
// pictures that lie pixel by pixel, and bring bias and activation with them.
#include <cudnn.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/convolution.h"
#include "cuda/convolution_parts.h"
#include "cuda/device.h"

namespace linnet::cuda {
namespace {

using ops::GpuConv;

constexpr cudnnConvolutionFwdAlgo_t implicit_product = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;

// The functions of the library that are used here.
struct Cudnn {
#define LINNET_CUDNN(name) decltype(&::name) name = find<decltype(&::name)>(#name)
  LINNET_CUDNN(cudnnGetErrorString);
  LINNET_CUDNN(cudnnCreate);
  LINNET_CUDNN(cudnnSetStream);
  LINNET_CUDNN(cudnnCreateTensorDescriptor);
  LINNET_CUDNN(cudnnSetTensor4dDescriptor);
  LINNET_CUDNN(cudnnCreateFilterDescriptor);
  LINNET_CUDNN(cudnnSetFilter4dDescriptor);
  LINNET_CUDNN(cudnnCreateConvolutionDescriptor);
  LINNET_CUDNN(cudnnSetConvolution2dDescriptor);
  LINNET_CUDNN(cudnnSetConvolutionMathType);
  LINNET_CUDNN(cudnnCreateActivationDescriptor);
  LINNET_CUDNN(cudnnSetActivationDescriptor);
  LINNET_CUDNN(cudnnGetConvolutionForwardAlgorithm_v7);
  LINNET_CUDNN(cudnnGetConvolutionForwardWorkspaceSize);
  LINNET_CUDNN(cudnnConvolutionForward);
  LINNET_CUDNN(cudnnConvolutionBiasActivationForward);
#undef LINNET_CUDNN

 private:
  static void* library() {
    void* const opened = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (opened == nullptr)
      fail(std::string("convolutions on the GPU need cuDNN 9, which was not found: ") + dlerror());
    return opened;
  }
  template <class Function>
  static Function find(const char* name) {
    void* const found = dlsym(library(), name);
    if (found == nullptr) fail(std::string("convolutions on the GPU need cuDNN 9: this one has no ") + name);
    return reinterpret_cast<Function>(found);
  }
};

const Cudnn& cudnn() {
  static const Cudnn instance;
  return instance;
}

void must(cudnnStatus_t result, const char* doing) {
  if (result != CUDNN_STATUS_SUCCESS)
    fail(std::string("cuDNN failed while ") + doing + ": " + cudnn().cudnnGetErrorString(result));
}

cudnnDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return CUDNN_DATA_FLOAT;
    case DType::bf16: return CUDNN_DATA_BFLOAT16;
    case DType::f16: return CUDNN_DATA_HALF;
    default: wrong_type(dtype);
  }
}

cudnnMathType_t math_of(DType dtype, bool tf32) {
  if (dtype != DType::f32) return CUDNN_TENSOR_OP_MATH;
  return tf32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
}

// The library's state, and the description of the convolution at hand. One at a time.
struct Session {
  std::mutex mutex;
  cudnnHandle_t handle = nullptr;
  cudnnTensorDescriptor_t x = nullptr, y = nullptr, bias = nullptr;
  cudnnFilterDescriptor_t weight = nullptr;
  cudnnConvolutionDescriptor_t convolution = nullptr;
  cudnnActivationDescriptor_t activation = nullptr;

  Session() {
    const Cudnn& f = cudnn();
    const char* const doing = "being started";
    must(f.cudnnCreate(&handle), doing);
    must(f.cudnnSetStream(handle, stream()), doing);
    for (auto* descriptor : {&x, &y, &bias}) must(f.cudnnCreateTensorDescriptor(descriptor), doing);
    must(f.cudnnCreateFilterDescriptor(&weight), doing);
    must(f.cudnnCreateConvolutionDescriptor(&convolution), doing);
    must(f.cudnnCreateActivationDescriptor(&activation), doing);
  }

  void describe(const GpuConv& c, DType dtype) const {
    const Cudnn& f = cudnn();
    const char* const doing = "describing a convolution";
    const auto picture = [&](cudnnTensorDescriptor_t which, int64_t n, int64_t channels, int64_t rows,
                             int64_t columns) {
      must(f.cudnnSetTensor4dDescriptor(which, CUDNN_TENSOR_NHWC, type_of(dtype), static_cast<int>(n),
                                        static_cast<int>(channels), static_cast<int>(rows),
                                        static_cast<int>(columns)),
           doing);
    };
    picture(x, c.n, c.in, c.height, c.width);
    picture(y, c.n, c.out, c.out_height, c.out_width);
    picture(bias, 1, c.out, 1, 1);
    must(f.cudnnSetFilter4dDescriptor(weight, type_of(dtype), CUDNN_TENSOR_NHWC, static_cast<int>(c.out),
                                      static_cast<int>(c.in), static_cast<int>(c.kernel_height),
                                      static_cast<int>(c.kernel_width)),
         doing);
    const auto stride = static_cast<int>(c.stride);
    must(f.cudnnSetConvolution2dDescriptor(convolution, static_cast<int>(c.top), static_cast<int>(c.left),
                                           stride, stride, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT),
         doing);
    must(f.cudnnSetConvolutionMathType(convolution, math_of(dtype, c.tf32)), doing);
    must(f.cudnnSetActivationDescriptor(activation, c.relu ? CUDNN_ACTIVATION_RELU : CUDNN_ACTIVATION_IDENTITY,
                                        CUDNN_PROPAGATE_NAN, 0.0),
         doing);
  }
};

Session& session() {
  static Session* const instance = new Session;
  return *instance;
}

// A way of computing a convolution that has been found to work.
struct Way {
  cudnnConvolutionFwdAlgo_t algorithm;
  bool fused;  // bias, addition and activation in the same pass
};

struct Operands {
  const GpuConv& conv;
  View x, weight, bias, y;
};

// Whether it could be done that way.
bool compute(const Session& s, const Operands& o, const Way& way) {
  const Cudnn& f = cudnn();
  size_t bytes = 0;
  if (f.cudnnGetConvolutionForwardWorkspaceSize(s.handle, s.x, s.weight, s.convolution, s.y, way.algorithm,
                                                &bytes) != CUDNN_STATUS_SUCCESS)
    return false;
  const Scratch workspace(bytes);
  const float one = 1.0f, kept = o.conv.accumulate ? 1.0f : 0.0f;
  if (way.fused)
    return f.cudnnConvolutionBiasActivationForward(s.handle, &one, s.x, o.x.data, s.weight, o.weight.data,
                                                   s.convolution, way.algorithm, workspace.as<void>(), bytes,
                                                   &kept, s.y, o.y.data, s.bias, o.bias.data, s.activation, s.y,
                                                   o.y.data) == CUDNN_STATUS_SUCCESS;
  if (f.cudnnConvolutionForward(s.handle, &one, s.x, o.x.data, s.weight, o.weight.data, s.convolution,
                                way.algorithm, workspace.as<void>(), bytes, &kept, s.y,
                                o.y.data) != CUDNN_STATUS_SUCCESS)
    return false;
  add_bias(o.bias, o.conv.relu, o.y, o.conv.n * o.conv.out_height * o.conv.out_width, o.conv.out);
  return true;
}

// The best first: all in one pass, then what cuDNN recommends.
std::vector<Way> ways(const Session& s) {
  std::vector<Way> result{{implicit_product, true}, {implicit_product, false}};
  std::array<cudnnConvolutionFwdAlgoPerf_t, CUDNN_CONVOLUTION_FWD_ALGO_COUNT> recommended;
  int count = 0;
  must(cudnn().cudnnGetConvolutionForwardAlgorithm_v7(s.handle, s.x, s.weight, s.convolution, s.y,
                                                      static_cast<int>(recommended.size()), &count,
                                                      recommended.data()),
       "looking for a way to compute a convolution");
  for (int i = 0; i < count; ++i) {
    const auto& candidate = recommended[static_cast<size_t>(i)];
    if (candidate.status == CUDNN_STATUS_SUCCESS && candidate.determinism == CUDNN_DETERMINISTIC)
      result.push_back({candidate.algo, false});
  }
  return result;
}

auto key_of(const GpuConv& c, DType dtype) {
  return std::tuple(c.n, c.height, c.width, c.in, c.out, c.kernel_height, c.kernel_width, c.stride, c.top,
                    c.left, c.relu, c.accumulate, c.tf32, dtype);
}

void convolve_evenly_padded(const Operands& o) {
  Session& s = session();
  const std::scoped_lock lock(s.mutex);
  s.describe(o.conv, o.x.dtype);
  static auto* const known = new std::map<decltype(key_of(o.conv, o.x.dtype)), Way>;
  const auto key = key_of(o.conv, o.x.dtype);
  if (const auto found = known->find(key); found != known->end() && compute(s, o, found->second)) return;
  for (const Way& way : ways(s))
    if (compute(s, o, way)) {
      if (known->size() > 4096) known->clear();
      known->insert_or_assign(key, way);
      return;
    }
  fail("cuDNN knows no way to compute a convolution of " + std::string(name_of(o.x.dtype)) + " on this GPU");
}

View from_value(View x, int64_t index) {
  return {x.as<char>() + index * static_cast<int64_t>(size_of(x.dtype)), x.dtype};
}

// cuDNN has as many zeros on both sides only.
void convolve_part(const GpuConv& conv, View x, View weight, View bias, View y) {
  if (conv.top == conv.bottom && conv.left == conv.right)
    return convolve_evenly_padded({conv, x, weight, bias, y});
  GpuConv inner = conv;
  inner.height += conv.top + conv.bottom;
  inner.width += conv.left + conv.right;
  inner.top = inner.left = inner.bottom = inner.right = 0;
  const Scratch padded(static_cast<size_t>(inner.n * inner.height * inner.width * inner.in) * size_of(x.dtype));
  const View view{padded.as<void>(), x.dtype};
  pad_picture(conv, x, view);
  convolve_evenly_padded({inner, view, weight, bias, y});
}

}  // namespace

void convolve(const GpuConv& conv, View x, View weight, View bias, View y) {
  in_parts(conv, INT32_MAX, [&](const GpuConv& part, int64_t x_at, int64_t y_at) {
    convolve_part(part, from_value(x, x_at), weight, bias, from_value(y, y_at));
  });
}

}  // namespace linnet::cuda
