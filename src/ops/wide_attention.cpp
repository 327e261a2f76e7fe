#include "ops/wide_attention.h"

#include <cmath>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/matmul.h"
#include "ops/softmax_rows_cpu.h"

namespace linnet::ops {
namespace {

constexpr int64_t scores_at_once = 2'000'000;  // 8 MB of them: about what stays in the caches

// Queries of one block: enough for a product to be large, whatever the number of keys.
int64_t block_of(int64_t tokens) { return std::clamp<int64_t>(scores_at_once / tokens, 64, 1024); }

void attend(const MatrixView& q, const MatrixView& k, const MatrixView& v, float scale, Tensor& out) {
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
  const int64_t tokens = q.size(1), d = q.size(2), block = block_of(tokens);
  const auto view = [&](const Tensor& x, int64_t sample, int64_t first, int64_t rows) {
    return MatrixView{element(x, (sample * tokens + first) * d), x.dtype(), rows, d, d, 1};
  };
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  Tensor out = Tensor::empty({q.size(0) * tokens, d}, q.dtype());
  for (int64_t sample = 0; sample < q.size(0); ++sample)
    for (int64_t first = 0; first < tokens; first += block) {
      const int64_t rows = std::min(block, tokens - first), start = sample * tokens + first;
      Tensor part = out.rows(start, start + rows);
      attend(view(q, sample, first, rows), view(k, sample, 0, tokens), view(v, sample, 0, tokens), scale, part);
    }
  return out.reshape(q.shape());
}

}  // namespace linnet::ops
