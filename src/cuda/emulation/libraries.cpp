// What the GPU's libraries offer, as plain loops over this machine's memory.
#include <cmath>

#include <linnet/error.h>

#include "cuda/convolution.h"
#include "cuda/convolution_parts.h"
#include "cuda/int8_rows.h"
#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

using ops::Activation;
using ops::MatrixView;

float gelu(float x) { return 0.5f * x * (1.0f + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x))); }

float gelu_slope(float x) {
  const float t = std::tanh(0.7978845608f * (x + 0.044715f * x * x * x));
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 3 * 0.044715f * x * x);
}

// store(where, sum) for each element.
template <class In, class Out, class Store>
void multiply(const MatrixView& a, const MatrixView& b, const Out* bias, bool accumulate, const Out* into,
              Store store) {
  const auto* left = static_cast<const In*>(a.data);
  const auto* right = static_cast<const In*>(b.data);
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < b.columns; ++j) {
      const int64_t at = i * b.columns + j;
      float sum = accumulate ? to_float(into[at]) : 0.0f;
      if (bias) sum += to_float(bias[j]);
      for (int64_t k = 0; k < a.columns; ++k)
        sum += to_float(left[i * a.row_stride + k * a.column_stride]) *
               to_float(right[k * b.row_stride + j * b.column_stride]);
      store(at, sum);
    }
}

// As the real library refuses them.
void check_layout(const MatrixView& m) {
  const bool rows = m.column_stride == 1 && (m.row_stride >= m.columns || m.rows == 1);
  const bool columns = m.row_stride == 1 && (m.column_stride >= m.rows || m.columns == 1);
  if (!rows && !columns)
    fail("a matrix for a product on the GPU needs neighbours along its rows or its columns");
}

void matmul(const MatrixView& a, const MatrixView& b, View bias, Activation activation, bool accumulate, bool,
            View into) {
  check_layout(a);
  check_layout(b);
  if (bias.data && bias.dtype != into.dtype) wrong_type(bias.dtype);
  if (a.dtype == DType::f32 && into.dtype != DType::f32) wrong_type(into.dtype);
  with_float(a.dtype, [&](auto* in) {
    with_float(into.dtype, [&](auto* out) {
      using In = Pointee<decltype(in)>;
      using Out = Pointee<decltype(out)>;
      emulation::put([=] {
        Out* const values = into.as<Out>();
        multiply<In, Out>(a, b, bias.as<Out>(), accumulate, values, [&](int64_t at, float sum) {
          assign(values[at], activation == Activation::gelu_tanh ? gelu(sum) : sum);
        });
      });
    });
  });
}

// Products of one type all through, which also keep or read a second matrix: store(kept, into, sum) for
// each element.
template <class Store>
void multiply_alike(const MatrixView& a, const MatrixView& b, View bias, View kept, View into, Store store) {
  check_layout(a);
  check_layout(b);
  if (kept.dtype != a.dtype || into.dtype != a.dtype) wrong_type(into.dtype);
  with_float(a.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    emulation::put([=] {
      multiply<T, T>(a, b, bias.as<T>(), false, nullptr,
                     [&](int64_t at, float sum) { store(kept.as<T>()[at], into.as<T>()[at], sum); });
    });
  });
}

// GELU is of the sums, not of what is kept of them, which is rounded.
void matmul_gelu(const MatrixView& a, const MatrixView& b, View bias, bool, View kept, View into) {
  multiply_alike(a, b, bias, kept, into, [](auto& before, auto& after, float sum) {
    assign(before, sum);
    assign(after, gelu(sum));
  });
}

void matmul_gelu_gradient(const MatrixView& a, const MatrixView& b, bool, View kept, View into) {
  multiply_alike(a, b, {}, kept, into, [](auto& before, auto& gradient, float sum) {
    assign(gradient, sum * gelu_slope(to_float(before)));
  });
}

template <class Address>
Address* moved(Address* address, DType dtype, int64_t elements) {
  using Byte = std::conditional_t<std::is_const_v<Address>, const char, char>;
  return static_cast<Byte*>(address) + elements * static_cast<int64_t>(size_of(dtype));
}

void matmul_batch(const MatrixView& a, const MatrixView& b, int64_t a_step, int64_t b_step, int64_t into_step,
                  int64_t batch, bool accumulate, bool tf32, View into) {
  for (int64_t i = 0; i < batch; ++i) {
    MatrixView left = a, right = b;
    left.data = moved(a.data, a.dtype, i * a_step);
    right.data = moved(b.data, b.dtype, i * b_step);
    matmul(left, right, {}, Activation::none, accumulate, tf32,
           {moved(into.data, into.dtype, i * into_step), into.dtype});
  }
}

// At once, so small that most convolutions of the tests are made in parts, as only huge ones are by cuDNN.
constexpr int64_t most_values = 500;

const char* engine() { return "plain loops"; }

// Of one window: over the pixels that lie in the picture.
template <class T>
float window_sum(const ops::GpuConv& c, const T* picture, const T* weight, int64_t top, int64_t left) {
  float sum = 0.0f;
  for (int64_t i = 0; i < c.kernel_height; ++i)
    for (int64_t j = 0; j < c.kernel_width; ++j) {
      const int64_t row = top + i, column = left + j;
      if (row < 0 || row >= c.height || column < 0 || column >= c.width) continue;
      const T* x = picture + (row * c.width + column) * c.in;
      const T* w = weight + (i * c.kernel_width + j) * c.in;
      for (int64_t k = 0; k < c.in; ++k) sum += to_float(x[k]) * to_float(w[k]);
    }
  return sum;
}

template <class T>
void convolve_all(const ops::GpuConv& c, const T* x, const T* weight, const T* bias, T* y) {
  const int64_t filter = c.kernel_height * c.kernel_width * c.in;
  for (int64_t i = 0; i < c.n * c.out_height * c.out_width * c.out; ++i) {
    const int64_t o = i % c.out, pixel = i / c.out, sample = pixel / c.out_width / c.out_height,
                  top = pixel / c.out_width % c.out_height * c.stride - c.top,
                  left = pixel % c.out_width * c.stride - c.left;
    float sum = window_sum(c, x + sample * c.height * c.width * c.in, weight + o * filter, top, left);
    sum += to_float(bias[o]) + (c.accumulate ? to_float(y[i]) : 0.0f);
    assign(y[i], c.relu && sum < 0.0f ? 0.0f : sum);
  }
}

}  // namespace

void convolve(const ops::GpuConv& conv, View x, View weight, View bias, View y) {
  if (weight.dtype != x.dtype || bias.dtype != x.dtype || y.dtype != x.dtype) wrong_type(y.dtype);
  with_float(x.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    in_parts(conv, most_values, [&](const ops::GpuConv& part, int64_t x_at, int64_t y_at) {
      emulation::put(
          [=] { convolve_all(part, x.as<T>() + x_at, weight.as<T>(), bias.as<T>(), y.as<T>() + y_at); });
    });
  });
}

void fill(ops::ProductKernels& table) {
  table = {matmul, matmul_gelu, matmul_gelu_gradient, matmul_batch, quantize_rows, dequantize_rows, engine};
}

}  // namespace linnet::cuda
