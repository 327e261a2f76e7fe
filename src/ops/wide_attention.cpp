#include "ops/wide_attention.h"

#include <cmath>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/matmul.h"
#include "ops/softmax_rows_cpu.h"

namespace linnet::ops {
namespace {

// Queries of one block: enough for a product to be large, whatever the number of keys, with scores of 8 MB on
// the CPU, about what stays in its caches, and of 128 MB on the GPU, which has more to fill.
int64_t block_of(int64_t tokens, const Device& device) {
  if (device.is_gpu()) return std::clamp<int64_t>(32'000'000 / tokens, 128, 8192);
  return std::clamp<int64_t>(2'000'000 / tokens, 64, 1024);
}

MatrixView rows_of(const Tensor& x, int64_t first, int64_t rows) {
  const int64_t d = x.shape()[-1];
  const void* data = x.on_gpu() ? x.view().as<char>() + static_cast<size_t>(first * d) * size_of(x.dtype())
                                : element(x, first * d);
  return {data, x.dtype(), rows, d, d, 1};
}

void attend_on_gpu(const MatrixView& q, const MatrixView& k, const MatrixView& v, float scale, Tensor& out) {
  const Tensor scores = Tensor::empty({q.rows, k.rows}, DType::f32, out.device());
  const Tensor shares = Tensor::empty({q.rows, k.rows}, v.dtype, out.device());
  const auto multiply = [](const MatrixView& a, const MatrixView& b, const Tensor& into) {
    gpu_kernels().product.matmul(a, b, {}, Activation::none, false, false, into.view());
  };
  multiply(q, k.transposed(), scores);
  gpu_kernels().softmax.rows(scores.view(), shares.view(), q.rows, k.rows, scale);
  multiply(rows_of(shares, 0, q.rows), v, out);
}

void attend(const MatrixView& q, const MatrixView& k, const MatrixView& v, float scale, Tensor& out) {
  if (out.on_gpu()) return attend_on_gpu(q, k, v, scale, out);
  Tensor scores = Tensor::empty({q.rows, k.rows}), shares = Tensor::empty({q.rows, k.rows}, v.dtype);
  matmul(q, k.transposed(), scores);
  float* score = scores.mutable_data<float>();
  const int64_t row_bytes = k.rows * static_cast<int64_t>(size_of(v.dtype));
  auto* share = static_cast<char*>(shares.mutable_raw());
  parallel_for(q.rows, 1, [&](int64_t begin, int64_t end) {
    cpu::softmax_rows(score + begin * k.rows, end - begin, k.rows, scale, share + begin * row_bytes, v.dtype);
  });
  matmul(as_matrix(shares), v, out);
}

}  // namespace

Tensor wide_attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  check(q.shape().rank() == 3 && q.numel() > 0 && q.shape() == k.shape() && q.shape() == v.shape() &&
            q.dtype() == k.dtype() && q.dtype() == v.dtype(),
        "wide_attention: q, k and v of shapes {}, {} and {} do not go together", to_string(q.shape()),
        to_string(k.shape()), to_string(v.shape()));
  check_type("wide_attention", q);
  const int64_t tokens = q.size(1), d = q.size(2), block = block_of(tokens, q.device());
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  Tensor out = Tensor::empty({q.size(0) * tokens, d}, q.dtype(), q.device());
  for (int64_t sample = 0; sample < q.size(0); ++sample)
    for (int64_t first = 0; first < tokens; first += block) {
      const int64_t rows = std::min(block, tokens - first), start = sample * tokens + first;
      Tensor part = out.rows(start, start + rows);
      attend(rows_of(q, start, rows), rows_of(k, sample * tokens, tokens), rows_of(v, sample * tokens, tokens),
             scale, part);
    }
  return out.reshape(q.shape());
}

}  // namespace linnet::ops
