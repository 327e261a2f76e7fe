#include "ops/arrange.h"

#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/element.h"

namespace linnet::ops {
namespace {

struct Grid {
  int64_t batch, channels, rows, columns, patch;  // rows and columns of patches
  int64_t tokens() const { return rows * columns; }
  int64_t width() const { return channels * patch * patch; }
  int64_t pixel(int64_t b, int64_t c, int64_t token, int64_t p) const {
    const int64_t y = token / columns * patch + p, x = token % columns * patch;
    return ((b * channels + c) * rows * patch + y) * columns * patch + x;
  }
};

// Walks over every run of `patch` pixels in an image row: f(index of its first pixel, token row, c, p).
template <class F>
void for_patch_rows(const Grid& grid, F f) {
  parallel_for(grid.batch * grid.tokens(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t c = 0; c < grid.channels; ++c)
        for (int64_t p = 0; p < grid.patch; ++p)
          f(grid.pixel(row / grid.tokens(), c, row % grid.tokens(), p), row, c, p);
  });
}

Tensor gather_channel_last(const Tensor& image, const Grid& grid) {  // → tokens ordered (p, q, c)
  Tensor tokens = Tensor::empty({grid.batch, grid.tokens(), grid.width()});
  const float* in = image.data<float>();
  float* out = tokens.mutable_data<float>();
  for_patch_rows(grid, [&](int64_t pixel, int64_t row, int64_t c, int64_t p) {
    for (int64_t q = 0; q < grid.patch; ++q)
      out[row * grid.width() + (p * grid.patch + q) * grid.channels + c] = in[pixel + q];
  });
  return tokens;
}

Tensor scatter_channel_last(const Tensor& tokens, const Grid& grid) {
  Tensor image = Tensor::empty({grid.batch, grid.channels, grid.rows * grid.patch, grid.columns * grid.patch});
  const float* in = tokens.data<float>();
  float* out = image.mutable_data<float>();
  for_patch_rows(grid, [&](int64_t pixel, int64_t row, int64_t c, int64_t p) {
    for (int64_t q = 0; q < grid.patch; ++q)
      out[pixel + q] = in[row * grid.width() + (p * grid.patch + q) * grid.channels + c];
  });
  return image;
}

Tensor gather_channel_first(const Tensor& image, const Grid& grid) {  // → tokens ordered (c, p, q)
  Tensor tokens = Tensor::empty({grid.batch, grid.tokens(), grid.width()});
  const float* in = image.data<float>();
  float* out = tokens.mutable_data<float>();
  for_patch_rows(grid, [&](int64_t pixel, int64_t row, int64_t c, int64_t p) {
    std::copy_n(in + pixel, grid.patch, out + row * grid.width() + (c * grid.patch + p) * grid.patch);
  });
  return tokens;
}

Tensor scatter_channel_first(const Tensor& tokens, const Grid& grid) {
  Tensor image = Tensor::empty({grid.batch, grid.channels, grid.rows * grid.patch, grid.columns * grid.patch});
  const float* in = tokens.data<float>();
  float* out = image.mutable_data<float>();
  for_patch_rows(grid, [&](int64_t pixel, int64_t row, int64_t c, int64_t p) {
    std::copy_n(in + row * grid.width() + (c * grid.patch + p) * grid.patch, grid.patch, out + pixel);
  });
  return image;
}

Tensor f32(const Tensor& gradient, const Shape& shape) { return gradient.to(DType::f32).reshape(shape); }

}  // namespace

Tensor patchify(const Tensor& x, int64_t patch) {
  check(x.shape().rank() == 4 && patch > 0 && x.size(2) % patch == 0 && x.size(3) % patch == 0,
        "a picture of shape {} cannot be cut into patches of {}", to_string(x.shape()), patch);
  const Grid grid{x.size(0), x.size(1), x.size(2) / patch, x.size(3) / patch, patch};
  Tensor y = gather_channel_first(x, grid);
  if (wants_grad(x))
    record_backward(y, [grid, shape = y.shape(), slot = x.grad_slot()](const Tensor& g) {
      accumulate_grad(slot, scatter_channel_first(f32(g, shape), grid));
    });
  return y;
}

Tensor unpatchify(const Tensor& tokens, int64_t rows, int64_t columns, int64_t patch) {
  check(rows > 0 && columns > 0 && patch > 0 && tokens.shape().rank() == 3 &&
            tokens.size(1) == rows * columns && tokens.size(2) % (patch * patch) == 0,
        "tokens of shape {} are no {}x{} grid of {}x{} patches", to_string(tokens.shape()), rows, columns,
        patch, patch);
  const Grid grid{tokens.size(0), tokens.size(2) / (patch * patch), rows, columns, patch};
  Tensor y = scatter_channel_last(tokens, grid);
  if (wants_grad(tokens))
    record_backward(y, [grid, shape = y.shape(), slot = tokens.grad_slot()](const Tensor& g) {
      accumulate_grad(slot, gather_channel_last(f32(g, shape), grid));
    });
  return y;
}

namespace {

// Columns first.. of all rows of `from` to columns into.. of those of `to`, `count` of them; both of one type.
void copy_columns(const Tensor& from, int64_t first, Tensor& to, int64_t into, int64_t count) {
  check(from.dtype() == to.dtype(), "columns of {} do not go into a tensor of {}", name_of(from.dtype()),
        name_of(to.dtype()));
  const int64_t from_width = from.shape()[-1], to_width = to.shape()[-1];
  const size_t bytes = static_cast<size_t>(count) * size_of(from.dtype());
  parallel_for(from.shape().rows(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(element(to, i * to_width + into), element(from, i * from_width + first), bytes);
  });
}

}  // namespace

std::vector<Tensor> chunk(const Tensor& x, int64_t n) {
  check(x.shape().rank() >= 2 && n > 0 && x.shape()[-1] % n == 0, "shape {} cannot be cut into {} chunks",
        to_string(x.shape()), n);
  const int64_t part = x.shape()[-1] / n;
  // The parts' gradients meet in one buffer, which the step recorded first, and so played last, hands on.
  std::shared_ptr<Tensor> gathered;
  std::vector<Tensor> parts;
  if (wants_grad(x)) {
    gathered = std::make_shared<Tensor>();
    Tape::active()->record([gathered, slot = x.grad_slot()] {
      if (gathered->defined()) accumulate_grad(slot, *gathered);
    });
  }
  for (int64_t k = 0; k < n; ++k) {
    Tensor y = Tensor::empty(x.shape().with_last(part), x.dtype());
    copy_columns(x, k * part, y, 0, part);
    if (gathered)
      record_backward(y, [gathered, k, part, shape = x.shape()](const Tensor& g) {
        if (!gathered->defined()) *gathered = Tensor::zeros(shape);
        copy_columns(g.to(DType::f32), 0, *gathered, k * part, part);
      });
    parts.push_back(y);
  }
  return parts;
}

namespace {

Tensor transposed(const Tensor& x) {
  const int64_t rows = x.size(0), columns = x.size(1);
  Tensor y = Tensor::empty({columns, rows});
  const float* in = x.data<float>();
  float* out = y.mutable_data<float>();
  // Tiles as wide as a cache line, so that one that is read is used whole, and tall, for what is written.
  constexpr int64_t tall = 128, wide = 16;
  const int64_t down = (rows + tall - 1) / tall, across = (columns + wide - 1) / wide;
  parallel_for(down * across, 16, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t r0 = tile % down * tall, c0 = tile / down * wide;
      const int64_t r1 = std::min(rows, r0 + tall), c1 = std::min(columns, c0 + wide);
      for (int64_t c = c0; c < c1; ++c)
        for (int64_t r = r0; r < r1; ++r) out[c * rows + r] = in[r * columns + c];
    }
  });
  return y;
}

}  // namespace

Tensor transpose(const Tensor& x) {
  check(x.shape().rank() == 2 && x.dtype() == DType::f32, "only a matrix of f32 is transposed, not shape {}",
        to_string(x.shape()));
  Tensor y = transposed(x);
  if (wants_grad(x))
    record_backward(
        y, [slot = x.grad_slot()](const Tensor& g) { accumulate_grad(slot, transposed(g.to(DType::f32))); });
  return y;
}

Tensor add(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "shapes {} and {} cannot be added", to_string(a.shape()), to_string(b.shape()));
  Tensor y = Tensor::empty(a.shape());
  const float *left = a.data<float>(), *right = b.data<float>();
  float* out = y.mutable_data<float>();
  parallel_for(y.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = left[i] + right[i];
  });
  if (wants_grad(a, b))
    record_backward(y, [da = a.grad_slot(), db = b.grad_slot()](const Tensor& g) {
      accumulate_grad(da, g);
      accumulate_grad(db, g);
    });
  return y;
}

Tensor add_row(const Tensor& x, const Tensor& row) {
  check(x.shape().rank() == 2 && row.numel() == x.size(1), "a row of {} values cannot be added to rows of {}",
        row.numel(), to_string(x.shape()));
  const int64_t n = x.size(0), d = x.size(1);
  const Tensor row32 = row.to(DType::f32);
  Tensor y = Tensor::empty(x.shape());
  const float *in = x.data<float>(), *added = row32.data<float>();
  float* out = y.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < d; ++j) out[i * d + j] = in[i * d + j] + added[j];
  if (wants_grad(x, row))
    record_backward(y, [x_slot = x.grad_slot(), row_slot = row.grad_slot(), n, d](const Tensor& g) {
      accumulate_grad(x_slot, g);
      if (!row_slot) return;
      const Tensor g32 = g.to(DType::f32);
      Tensor sum = Tensor::zeros({d});
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < d; ++j) sum.mutable_data<float>()[j] += g32.data<float>()[i * d + j];
      accumulate_grad(row_slot, sum);
    });
  return y;
}

Tensor concat_columns(const Tensor& left, const Tensor& right) {
  check(left.shape().rank() == 2 && right.shape().rank() == 2 && left.size(0) == right.size(0),
        "{} and {} cannot lie beside each other", to_string(left.shape()), to_string(right.shape()));
  const int64_t n = left.size(0), a = left.size(1), b = right.size(1);
  Tensor y = Tensor::empty({n, a + b});
  copy_columns(left, 0, y, 0, a);
  copy_columns(right, 0, y, a, b);
  if (wants_grad(left, right))
    record_backward(y,
                    [left_slot = left.grad_slot(), right_slot = right.grad_slot(), n, a, b](const Tensor& g) {
                      const Tensor g32 = g.to(DType::f32);
                      Tensor dleft = Tensor::empty({n, a}), dright = Tensor::empty({n, b});
                      copy_columns(g32, 0, dleft, 0, a);
                      copy_columns(g32, a, dright, 0, b);
                      accumulate_grad(left_slot, dleft);
                      accumulate_grad(right_slot, dright);
                    });
  return y;
}

Tensor add_positions(const Tensor& x, const Tensor& positions) {
  check(x.shape().rank() == 3 && positions.numel() == x.size(1) * x.size(2),
        "positions {} do not fit tokens {}", to_string(positions.shape()), to_string(x.shape()));
  const int64_t n = positions.numel();
  Tensor y = Tensor::empty(x.shape());
  const float *in = x.data<float>(), *pos = positions.data<float>();
  float* out = y.mutable_data<float>();
  parallel_for(x.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      for (int64_t i = 0; i < n; ++i) out[b * n + i] = in[b * n + i] + pos[i];
  });
  if (wants_grad(x)) record_backward(y, [slot = x.grad_slot()](const Tensor& g) { accumulate_grad(slot, g); });
  return y;
}

Tensor mean_tokens(const Tensor& x) {
  check(x.shape().rank() == 3 && x.size(1) > 0, "mean_tokens wants (batch, tokens, d), not shape {}",
        to_string(x.shape()));
  const int64_t batch = x.size(0), tokens = x.size(1), d = x.size(2);
  const float share = 1.0f / static_cast<float>(tokens);
  Tensor y = Tensor::zeros({batch, d});
  const float* in = x.data<float>();
  float* out = y.mutable_data<float>();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t token = 0; token < tokens; ++token)
      for (int64_t j = 0; j < d; ++j) out[b * d + j] += in[(b * tokens + token) * d + j];
    for (int64_t j = 0; j < d; ++j) out[b * d + j] *= share;
  }
  if (wants_grad(x))
    record_backward(y, [slot = x.grad_slot(), shape = x.shape(), share, d](const Tensor& g) {
      Tensor dx = Tensor::empty(shape);
      const Tensor g32 = g.to(DType::f32);
      const float* from = g32.data<float>();
      float* to = dx.mutable_data<float>();
      for (int64_t row = 0; row < shape[0] * shape[1]; ++row)
        for (int64_t j = 0; j < d; ++j) to[row * d + j] = from[row / shape[1] * d + j] * share;
      accumulate_grad(slot, dx);
    });
  return y;
}

Tensor embedding(const Tensor& table, const Tensor& indices) {
  check(table.shape().rank() == 2, "an embedding's table has two dimensions, not shape {}",
        to_string(table.shape()));
  const int64_t count = table.size(0), d = table.size(1), n = indices.numel();
  const int64_t* index = indices.data<int64_t>();
  for (int64_t i = 0; i < n; ++i)
    check(index[i] >= 0 && index[i] < count, "embedding: index {} is outside a table of {} rows", index[i],
          count);
  Tensor y = Tensor::empty({n, d});
  float* out = y.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) {  // converted row by row: a table is large, and few of its rows are wanted
    const Tensor row = table.rows(index[i], index[i] + 1).to(DType::f32);
    std::copy_n(row.data<float>(), d, out + i * d);
  }
  if (wants_grad(table))
    record_backward(y, [indices, slot = table.grad_slot(), shape = table.shape(), n, d](const Tensor& g) {
      Tensor dtable = Tensor::zeros(shape);
      const Tensor g32 = g.to(DType::f32);
      const float* from = g32.data<float>();
      float* to = dtable.mutable_data<float>();
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < d; ++j) to[indices.data<int64_t>()[i] * d + j] += from[i * d + j];
      accumulate_grad(slot, dtable);
    });
  return y;
}

Tensor timestep_embedding(const Tensor& t, int64_t width) {
  check(width > 0 && width % 2 == 0, "a timestep embedding's width is even, not {}", width);
  const int64_t n = t.numel(), half = width / 2;
  Tensor y = Tensor::empty({n, width});
  const float* time = t.data<float>();
  float* out = y.mutable_data<float>();
  for (int64_t i = 0; i < half; ++i) {
    const float frequency = std::exp(-std::log(10000.0f) * static_cast<float>(i) / static_cast<float>(half));
    for (int64_t k = 0; k < n; ++k) {
      out[k * width + i] = std::cos(time[k] * frequency);
      out[k * width + half + i] = std::sin(time[k] * frequency);
    }
  }
  return y;
}

}  // namespace linnet::ops
