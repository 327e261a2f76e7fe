// What the kernels of norms and of gated residuals share: how rows are divided among blocks where sums over
// rows are wanted, too. Each block writes its own sums, and a second pass adds them up (ops/reduce_cuda.h).
#pragma once

#include <algorithm>

#include "cuda/runtime.h"
#include "ops/reduce_cuda.h"

namespace linnet::cuda {

/// Neighbours that a thread reads at once, where widths and addresses allow.
constexpr int pack_width = 4;

/// Rows whose loads a thread has on the way together.
constexpr int rows_together = 4;

/// The rows (batch, tokens) of d numbers; each sample's tokens are divided into `parts` of `part` rows, one for
/// a block. The division depends on sizes alone, so that sums come out the same on every card.
struct RowParts {
  int64_t batch, tokens, d, parts, part;

  RowParts(int64_t batch_, int64_t tokens_, int64_t d_) : batch(batch_), tokens(tokens_), d(d_) {
    constexpr int64_t blocks = 2048, least = 16;  // fewer rows: the sums would weigh against what is summed
    const int64_t rows = std::max(least, divide_up(batch * tokens, blocks));
    part = std::min(divide_up(rows, rows_together) * rows_together, std::max<int64_t>(1, tokens));
    parts = divide_up(tokens, part);
  }
  unsigned blocks() const { return static_cast<unsigned>(batch * parts); }
};

/// Where blocks put sums over their rows of a result (batch, d): (batch, parts, d), or, of a single part, the
/// result itself.
class PartialSums {
 public:
  PartialSums(const RowParts& rows, View result)
      : rows_(rows), result_(result), memory_(rows.parts > 1 ? bytes() : 0) {}
  float* at() const { return rows_.parts > 1 ? memory_.as<float>() : result_.as<float>(); }
  /// After the kernel that wrote them.
  void add_up() const {
    if (rows_.parts > 1) sum_rows_of_groups({at(), DType::f32}, result_, rows_.batch, rows_.parts, rows_.d);
  }

 private:
  size_t bytes() const { return static_cast<size_t>(rows_.batch * rows_.parts * rows_.d) * sizeof(float); }

  RowParts rows_;
  View result_;
  Scratch memory_;
};

/// Threads of a block that has `work` columns of a row to divide: whole warps.
inline unsigned threads_for(int64_t work, int64_t most) {
  return static_cast<unsigned>(std::clamp<int64_t>(divide_up(work, warp_size) * warp_size, warp_size, most));
}

void modulate(View x, View shift, View scale, float epsilon, View y, View statistics, int64_t batch,
              int64_t tokens, int64_t d);
void modulate_backward(View g, View x, View scale, View statistics, View dx, View dshift, View dscale,
                       int64_t batch, int64_t tokens, int64_t d);
void gated_residual(View x, View gate, View y, View out, int64_t batch, int64_t tokens, int64_t d);
void gated_residual_backward(View g, View gate, View y, View dy, View dgate, int64_t batch, int64_t tokens,
                             int64_t d);
void rms(View x, View weight, float epsilon, View y, int64_t rows, int64_t d);
void rms_backward(View x, View weight, View g, float epsilon, View dx, View dweight, int64_t rows, int64_t d);

}  // namespace linnet::cuda
