// Convolution of pictures, on the CPU by oneDNN, on a GPU by cuDNN. Pictures lie pixel by pixel, (n, height,
// width, channels), where every product is over a pixel's channels. Not differentiable: networks built of it
// (VAE, Inception) come trained.
#pragma once

#include <memory>

#include "core/tensor.h"

namespace linnet::ops {

/// How a convolution's window runs over the picture: its step, and the zeros around the picture, in pixels.
struct ConvWindow {
  int64_t stride = 1;
  int64_t top = 0, left = 0, bottom = 0, right = 0;

  /// As many zeros on every side.
  static ConvWindow padded(int64_t zeros, int64_t stride = 1) { return {stride, zeros, zeros, zeros, zeros}; }
};

enum class ConvActivation : uint8_t { none, relu };

/// A convolution's weight and bias in a product type, laid out as the device that it works on likes them best,
/// for repeated use. It works where its input lies, or on the GPU if the weight was given there.
class PackedConv {
 public:
  PackedConv() = default;
  /// weight (out, in, height, width) and bias (out) of any float type; bias may be undefined. dtype: f32,
  /// bf16 or, for a GPU, f16.
  PackedConv(const Tensor& weight, const Tensor& bias, DType dtype);
  bool defined() const { return state_ != nullptr; }
  DType dtype() const;

  /// x (n, h, w, in) of the product type → (n, h', w', out) of type out_dtype.
  Tensor apply(const Tensor& x, const ConvWindow& window, DType out_dtype,
               ConvActivation activation = ConvActivation::none) const;
  /// The same, added to `sum` (n, h', w', out), whose memory the result takes.
  Tensor add_to(Tensor sum, const Tensor& x, const ConvWindow& window) const;

 private:
  struct State;
  void run(const Tensor& x, const ConvWindow& window, ConvActivation activation, bool accumulate,
           Tensor& into) const;
  void run_on_gpu(const Tensor& x, const ConvWindow& window, ConvActivation activation, bool accumulate,
                  Tensor& into) const;
  Tensor placed(const Tensor& x) const;
  Shape shape_of_result(const Tensor& x, const ConvWindow& window) const;

  std::shared_ptr<State> state_;
};

}  // namespace linnet::ops
