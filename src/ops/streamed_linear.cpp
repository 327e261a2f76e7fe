#include "ops/streamed_linear.h"

#include <algorithm>

#include "core/parallel.h"
#include "ops/arrange.h"
#include "ops/element.h"
#include "ops/int8_linear.h"
#include "ops/int8_linear_cpu.h"
#include "ops/matmul.h"

namespace linnet::ops {
namespace {

// So many rows that a product is worth its start, so few that they stay in the second-level cache.
int64_t rows_at_once(int64_t columns) { return std::clamp<int64_t>((1 << 19) / columns, 16, 512); }

// Rows begin..end in x's type.
Tensor float_rows(const Tensor& weight, const Tensor& scale, int64_t begin, int64_t end, DType dtype) {
  const int64_t columns = weight.size(1);
  if (weight.dtype() != DType::i8) return weight.rows(begin, end).to(dtype);
  Tensor result = Tensor::empty({end - begin, columns}, dtype);
  parallel_for(end - begin, 8, [&](int64_t first, int64_t last) {
    cpu::scale_rows(weight.data<int8_t>() + (begin + first) * columns, scale.data<float>() + begin + first,
                    last - first, columns, element(result, first * columns), dtype);
  });
  return result;
}

// The whole weight at once: a card has room for one in another type, and is quickest with large products.
Tensor linear_on_gpu(const Tensor& x, const Tensor& weight, const Tensor& scale, DType out_dtype) {
  const Tensor stored = weight.detach().to(x.device());
  const Tensor floats =
      stored.dtype() == DType::i8 ? dequantize({stored, scale.detach()}, x.dtype()) : stored.to(x.dtype());
  Tensor y = Tensor::empty(x.shape().with_last(weight.size(0)), out_dtype, x.device());
  matmul(as_matrix(x), as_matrix(floats).transposed(), y);
  return y;
}

}  // namespace

Tensor streamed_linear(const Tensor& x, const Tensor& weight, const Tensor& scale, DType out_dtype) {
  const Device device = x.on_gpu() ? x.device() : weight.device();
  check_type("streamed_linear", x.dtype(), device);
  check_type("streamed_linear", out_dtype, device);
  check(weight.defined() && weight.shape().rank() == 2 && x.shape().rank() >= 1 && x.size(-1) == weight.size(1),
        "streamed_linear: a weight does not go with x of shape {}", to_string(x.shape()));
  const int64_t out = weight.size(0), in = weight.size(1);
  check(weight.dtype() != DType::i8 || (scale.defined() && scale.numel() == out),
        "streamed_linear: a weight in 8 bits needs a scale for each row");
  if (in == 0) return Tensor::zeros(x.shape().with_last(out), out_dtype, device);  // sums of nothing
  if (device.is_gpu()) return linear_on_gpu(x.detach().to(device), weight, scale, out_dtype);
  // The other way round, W·xᵀ: its rows are then those of the weight, and lie one after the other.
  Tensor result = Tensor::empty({out, x.numel() / in});
  for (int64_t begin = 0, step = rows_at_once(in); begin < out; begin += step) {
    const int64_t end = std::min(out, begin + step);
    Tensor part = result.rows(begin, end);
    matmul(as_matrix(float_rows(weight, scale, begin, end, x.dtype())), as_matrix(x).transposed(), part);
  }
  return transpose(result).to(out_dtype).reshape(x.shape().with_last(out));
}

}  // namespace linnet::ops
