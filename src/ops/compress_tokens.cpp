#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/compress_tokens.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/arrange.h"
#include "ops/compress_tokens.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/simd-inl.h"

#ifndef LINNET_COMPRESS_TOKENS_SQUARE
#define LINNET_COMPRESS_TOKENS_SQUARE
namespace linnet::ops::cpu {

// One square of tokens of d channels; a token is `row` elements before the one below it.
struct TokenSquare {
  int64_t size, d, row;
  const float* weight;  // (size·size, d)
};

}  // namespace linnet::ops::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

using cpu::TokenSquare;

void compress_square(const TokenSquare& s, const void* x_, DType dtype, const float* bias, float* out) {
  with_type(x_, dtype, [&](auto* x) HWY_ATTR {
    for_lanes(s.d, [&](auto d, int64_t i) HWY_ATTR {
      auto sum = load(d, bias + i);
      for (int64_t p = 0; p < s.size * s.size; ++p) {
        const int64_t token = p / s.size * s.row + p % s.size * s.d;
        sum = hn::MulAdd(load(d, x + token + i), load(d, s.weight + p * s.d + i), sum);
      }
      store(sum, d, out + i);
    });
  });
}

// dx = g·weight; g·x and g are added to dweight (size·size, d) and dbias.
void square_backward(const TokenSquare& s, const void* x_, void* dx_, DType dtype, const float* g,
                     float* dweight, float* dbias) {
  with_type(x_, dtype, [&](auto* x) HWY_ATTR {
    with_type(dx_, dtype, [&](auto* dx) HWY_ATTR {
      for_lanes(s.d, [&](auto d, int64_t i) HWY_ATTR {
        const auto gradient = load(d, g + i);
        store(hn::Add(load(d, dbias + i), gradient), d, dbias + i);
        for (int64_t p = 0; p < s.size * s.size; ++p) {
          const int64_t token = p / s.size * s.row + p % s.size * s.d + i, w = p * s.d + i;
          store(hn::Mul(gradient, load(d, s.weight + w)), d, dx + token);
          store(hn::MulAdd(gradient, load(d, x + token), load(d, dweight + w)), d, dweight + w);
        }
      });
    });
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops {

HWY_EXPORT(compress_square);
HWY_EXPORT(square_backward);

namespace {

// Squares are counted along the rows of the first sample first.
struct Squares {
  int64_t rows, columns, size, d;

  int64_t across() const { return columns / size; }
  int64_t each() const { return rows / size * across(); }  // of a sample
  // The first element of a square's first token.
  int64_t first(int64_t square) const {
    const int64_t y = square % each() / across() * size, x = square % across() * size;
    return (square / each() * rows * columns + y * columns + x) * d;
  }
  cpu::TokenSquare of(const Tensor& weight) const { return {size, d, columns * d, weight.data<float>()}; }
};

Squares squares_of(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t rows, int64_t columns) {
  check_type("compress_tokens", x);
  check(weight.defined() && bias.defined() && x.shape().rank() == 3 && weight.shape().rank() == 4,
        "compress_tokens: x is of shape {}, not (batch, tokens, d), or its filters are missing",
        to_string(x.shape()));
  const int64_t d = x.size(2), size = weight.size(3);
  check(size > 0 && weight.shape() == Shape{d, 1, size, size} && bias.shape() == Shape{d},
        "compress_tokens: weight {} and bias {} do not fit {} channels", to_string(weight.shape()),
        to_string(bias.shape()), d);
  check(rows > 0 && columns > 0 && rows * columns == x.size(1),
        "compress_tokens: a {}x{} grid does not hold {} tokens", rows, columns, x.size(1));
  check(rows >= size && columns >= size, "a grid of {0}x{1} tokens has no square of {2}x{2}", rows, columns,
        size);
  return {rows, columns, size, d};
}

// weight here is (size·size, d).
Tensor compressed(const Squares& s, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Tensor y = Tensor::empty({x.size(0), s.each(), s.d}, DType::f32, x.device());
  if (x.on_gpu()) {
    gpu_kernels().compress.forward(x.view(), weight.view(), f32_view(bias), y.view(), x.size(0), s.rows,
                                   s.columns, s.size, s.d);
    return y;
  }
  const float* added = bias.data<float>();
  float* out = y.mutable_data<float>();
  parallel_for(x.size(0) * s.each(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) HWY_DYNAMIC_DISPATCH(compress_square)
    (s.of(weight), element(x, s.first(i)), x.dtype(), added, out + i * s.d);
  });
  return y;
}

struct Gradients {
  Tensor x, weight, bias;
};

Gradients on_gpu(const Squares& s, const Tensor& x, const Tensor& weight, const Tensor& g) {
  const Gradients d{Tensor::empty(x.shape(), x.dtype(), x.device()),
                    Tensor::empty(weight.shape(), DType::f32, x.device()),
                    Tensor::empty({s.d}, DType::f32, x.device())};
  gpu_kernels().compress.backward(g.view(), x.view(), weight.view(), d.x.view(), d.weight.view(), d.bias.view(),
                                  x.size(0), s.rows, s.columns, s.size, s.d);
  return d;
}

Gradients on_cpu(const Squares& s, const Tensor& x, const Tensor& weight, const Tensor& g) {
  Gradients d{Tensor::zeros(x.shape(), x.dtype()),  // where no square lies it stays so
              Tensor::zeros(weight.shape()), Tensor::zeros({s.d})};
  for (int64_t i = 0; i < x.size(0) * s.each(); ++i) HWY_DYNAMIC_DISPATCH(square_backward)
  (s.of(weight), element(x, s.first(i)), element(d.x, s.first(i)), x.dtype(), g.data<float>() + i * s.d,
   d.weight.mutable_data<float>(), d.bias.mutable_data<float>());
  return d;
}

}  // namespace

Tensor compress_tokens(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t rows,
                       int64_t columns) {
  const Squares squares = squares_of(x, weight, bias, rows, columns);
  const Tensor filters = weight.detach().to(x.device()).reshape({squares.d, squares.size * squares.size});
  const Tensor turned = transpose(filters);  // (size·size, d)
  Tensor y = compressed(squares, x, turned, bias.to(x.device()));
  if (wants_grad(x, weight, bias))
    record_backward(y, [x = x.detach(), turned, squares, x_slot = x.grad_slot(),
                        weight_slot = weight.grad_slot(), bias_slot = bias.grad_slot()](const Tensor& g) {
      const Gradients d = (x.on_gpu() ? on_gpu : on_cpu)(squares, x, turned, g.to(DType::f32));
      accumulate_grad(x_slot, d.x);
      accumulate_grad(weight_slot, transpose(d.weight));
      accumulate_grad(bias_slot, d.bias);
    });
  return y;
}

}  // namespace linnet::ops
#endif
