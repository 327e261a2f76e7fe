#include "ops/arrange.h"

#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "core/tape.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/reduce.h"

namespace linnet::ops {
namespace {

struct Grid : PatchGrid {
  int64_t tokens() const { return rows * columns; }
  int64_t width() const { return channels * patch * patch; }
  int64_t pixel(int64_t b, int64_t c, int64_t token, int64_t p) const {
    const int64_t y = token / columns * patch + p, x = token % columns * patch;
    return ((b * channels + c) * rows * patch + y) * columns * patch + x;
  }
};

// How a token's values are ordered: (p, q, c) or (c, p, q).
enum class Channels : uint8_t { last, first };

// Walks over every run of `patch` pixels in an image row: f(index of its first pixel, that of its first value
// in the tokens, and the step to the next value).
template <class F>
void for_patch_rows(const Grid& grid, Channels channels, F f) {
  const bool last = channels == Channels::last;
  parallel_for(grid.batch * grid.tokens(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t c = 0; c < grid.channels; ++c)
        for (int64_t p = 0; p < grid.patch; ++p) {
          const int64_t value = last ? p * grid.patch * grid.channels + c : (c * grid.patch + p) * grid.patch;
          f(grid.pixel(row / grid.tokens(), c, row % grid.tokens(), p), row * grid.width() + value,
            last ? grid.channels : 1);
        }
  });
}

Tensor to_tokens(const Tensor& image, const Grid& grid, Channels channels) {
  Tensor tokens = Tensor::empty({grid.batch, grid.tokens(), grid.width()}, DType::f32, image.device());
  if (image.on_gpu()) {
    gpu_kernels().arrange.to_patches(grid, channels == Channels::last, f32_view(image), tokens.view());
    return tokens;
  }
  const float* in = image.data<float>();
  float* out = tokens.mutable_data<float>();
  for_patch_rows(grid, channels, [&](int64_t pixel, int64_t value, int64_t step) {
    for (int64_t q = 0; q < grid.patch; ++q) out[value + q * step] = in[pixel + q];
  });
  return tokens;
}

Tensor to_image(const Tensor& tokens, const Grid& grid, Channels channels) {
  Tensor image = Tensor::empty({grid.batch, grid.channels, grid.rows * grid.patch, grid.columns * grid.patch},
                               DType::f32, tokens.device());
  if (tokens.on_gpu()) {
    gpu_kernels().arrange.from_patches(grid, channels == Channels::last, f32_view(tokens), image.view());
    return image;
  }
  const float* in = tokens.data<float>();
  float* out = image.mutable_data<float>();
  for_patch_rows(grid, channels, [&](int64_t pixel, int64_t value, int64_t step) {
    for (int64_t q = 0; q < grid.patch; ++q) out[pixel + q] = in[value + q * step];
  });
  return image;
}

Tensor f32(const Tensor& gradient, const Shape& shape) { return gradient.to(DType::f32).reshape(shape); }

}  // namespace

Tensor patchify(const Tensor& x, int64_t patch) {
  check(x.shape().rank() == 4 && patch > 0 && x.size(2) % patch == 0 && x.size(3) % patch == 0,
        "a picture of shape {} cannot be cut into patches of {}", to_string(x.shape()), patch);
  const Grid grid{{x.size(0), x.size(1), x.size(2) / patch, x.size(3) / patch, patch}};
  Tensor y = to_tokens(x, grid, Channels::first);
  if (wants_grad(x))
    record_backward(y, [grid, shape = y.shape(), slot = x.grad_slot()](const Tensor& g) {
      accumulate_grad(slot, to_image(f32(g, shape), grid, Channels::first));
    });
  return y;
}

Tensor unpatchify(const Tensor& tokens, int64_t rows, int64_t columns, int64_t patch) {
  check(rows > 0 && columns > 0 && patch > 0 && tokens.shape().rank() == 3 &&
            tokens.size(1) == rows * columns && tokens.size(2) % (patch * patch) == 0,
        "tokens of shape {} are no {}x{} grid of {}x{} patches", to_string(tokens.shape()), rows, columns,
        patch, patch);
  const Grid grid{{tokens.size(0), tokens.size(2) / (patch * patch), rows, columns, patch}};
  Tensor y = to_image(tokens, grid, Channels::last);
  if (wants_grad(tokens))
    record_backward(y, [grid, shape = y.shape(), slot = tokens.grad_slot()](const Tensor& g) {
      accumulate_grad(slot, to_tokens(f32(g, shape), grid, Channels::last));
    });
  return y;
}

namespace {

// Columns first.. of all rows of `from` to columns into.. of those of `to`, `count` of them; both of one type.
void copy_columns(const Tensor& from, int64_t first, Tensor& to, int64_t into, int64_t count) {
  check(from.dtype() == to.dtype(), "columns of {} do not go into a tensor of {}", name_of(from.dtype()),
        name_of(to.dtype()));
  const int64_t from_width = from.shape()[-1], to_width = to.shape()[-1];
  if (to.on_gpu()) {
    gpu_kernels().arrange.copy_columns(from.view(), from_width, first, to.view(), to_width, into, count,
                                       from.shape().rows(), static_cast<int64_t>(size_of(from.dtype())));
    return;
  }
  const size_t bytes = static_cast<size_t>(count) * size_of(from.dtype());
  parallel_for(from.shape().rows(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(element(to, i * to_width + into), element(from, i * from_width + first), bytes);
  });
}

// All columns of x, from the first on, into those of the parts.
void split_columns(const Tensor& x, std::vector<Tensor>& parts) {
  const int64_t part = parts.front().shape()[-1];
  const auto count = static_cast<int64_t>(parts.size());
  if (!x.on_gpu() || count > ArrangeKernels::most_parts) {
    for (int64_t k = 0; k < count; ++k) copy_columns(x, k * part, parts[static_cast<size_t>(k)], 0, part);
    return;
  }
  std::array<View, ArrangeKernels::most_parts> views;
  std::ranges::transform(parts, views.begin(), [](const Tensor& t) { return t.view(); });
  gpu_kernels().arrange.split_columns(x.view(), views.data(), count, part, x.shape().rows(),
                                      static_cast<int64_t>(size_of(x.dtype())));
}

}  // namespace

std::vector<Tensor> chunk(const Tensor& x, int64_t n) {
  check(x.shape().rank() >= 2 && n > 0 && x.shape()[-1] % n == 0, "shape {} cannot be cut into {} chunks",
        to_string(x.shape()), n);
  const int64_t part = x.shape()[-1] / n;
  // The parts' gradients meet in one buffer, which the step recorded first, and so played last, hands on. On a
  // GPU, which is bound by memory, it is no wider than x.
  const DType type = x.on_gpu() ? x.dtype() : DType::f32;
  std::shared_ptr<Tensor> gathered;
  std::vector<Tensor> parts;
  if (wants_grad(x)) {
    gathered = std::make_shared<Tensor>();
    Tape::active()->record([gathered, slot = x.grad_slot()] {
      if (gathered->defined()) accumulate_grad(slot, *gathered);
    });
  }
  for (int64_t k = 0; k < n; ++k)
    parts.push_back(Tensor::empty(x.shape().with_last(part), x.dtype(), x.device()));
  split_columns(x, parts);
  for (int64_t k = 0; gathered && k < n; ++k)
    record_backward(parts[static_cast<size_t>(k)],
                    [gathered, k, part, type, shape = x.shape()](const Tensor& g) {
                      if (!gathered->defined()) *gathered = Tensor::zeros(shape, type, g.device());
                      copy_columns(g.to(gathered->device()).to(type), 0, *gathered, k * part, part);
                    });
  return parts;
}

namespace {

Tensor transposed(const Tensor& x) {
  const int64_t rows = x.size(0), columns = x.size(1);
  Tensor y = Tensor::empty({columns, rows}, DType::f32, x.device());
  if (x.on_gpu()) {
    gpu_kernels().arrange.transpose(x.view(), y.view(), rows, columns);
    return y;
  }
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

namespace {

// x[i] + added[i mod its size], of f32 on one device.
Tensor sum_repeated(const Tensor& x, const Tensor& added) {
  const int64_t n = x.numel(), period = added.numel();
  Tensor y = Tensor::empty(x.shape(), DType::f32, x.device());
  if (x.on_gpu()) {
    gpu_kernels().arrange.add_repeated(f32_view(x), f32_view(added), y.view(), n, period);
    return y;
  }
  const float *in = x.data<float>(), *more = added.data<float>();
  float* out = y.mutable_data<float>();
  parallel_for(n, 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t first = i % period, run = std::min(end - i, period - first);
      for (int64_t j = 0; j < run; ++j) out[i + j] = in[i + j] + more[first + j];
      i += run;
    }
  });
  return y;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "shapes {} and {} cannot be added", to_string(a.shape()), to_string(b.shape()));
  const Device device = device_of(a, b);
  Tensor y = sum_repeated(a.to(device), b.to(device));
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
  const Device device = device_of(x, row);
  Tensor y = sum_repeated(x.to(device), row.to(device).to(DType::f32));
  if (wants_grad(x, row))
    record_backward(y,
                    [x_slot = x.grad_slot(), row_slot = row.grad_slot(), shape = x.shape()](const Tensor& g) {
                      accumulate_grad(x_slot, g);
                      if (row_slot) accumulate_grad(row_slot, sum_rows(g.reshape(shape)));
                    });
  return y;
}

Tensor concat_columns(const Tensor& left, const Tensor& right) {
  check(left.shape().rank() == 2 && right.shape().rank() == 2 && left.size(0) == right.size(0),
        "{} and {} cannot lie beside each other", to_string(left.shape()), to_string(right.shape()));
  const int64_t n = left.size(0), a = left.size(1), b = right.size(1);
  const Device device = device_of(left, right);
  Tensor y = Tensor::empty({n, a + b}, DType::f32, device);
  copy_columns(left.to(device), 0, y, 0, a);
  copy_columns(right.to(device), 0, y, a, b);
  if (wants_grad(left, right))
    record_backward(y,
                    [left_slot = left.grad_slot(), right_slot = right.grad_slot(), n, a, b](const Tensor& g) {
                      const Tensor g32 = g.to(DType::f32);
                      Tensor dleft = Tensor::empty({n, a}, DType::f32, g.device());
                      Tensor dright = Tensor::empty({n, b}, DType::f32, g.device());
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
  const Device device = device_of(x, positions);
  Tensor y = sum_repeated(x.to(device), positions.to(device));
  if (wants_grad(x)) record_backward(y, [slot = x.grad_slot()](const Tensor& g) { accumulate_grad(slot, g); });
  return y;
}

namespace {

Tensor mean(const Tensor& x, float share) {
  const int64_t batch = x.size(0), tokens = x.size(1), d = x.size(2);
  if (x.on_gpu()) {
    Tensor y = Tensor::empty({batch, d}, DType::f32, x.device());
    gpu_kernels().arrange.sum_tokens(f32_view(x), y.view(), batch, tokens, d, share);
    return y;
  }
  Tensor y = Tensor::zeros({batch, d});
  const float* in = x.data<float>();
  float* out = y.mutable_data<float>();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t token = 0; token < tokens; ++token)
      for (int64_t j = 0; j < d; ++j) out[b * d + j] += in[(b * tokens + token) * d + j];
    for (int64_t j = 0; j < d; ++j) out[b * d + j] *= share;
  }
  return y;
}

// g (batch, d) f32, times share, for each token of shape (batch, tokens, d).
Tensor spread(const Tensor& g, const Shape& shape, float share) {
  const int64_t batch = shape[0], tokens = shape[1], d = shape[2];
  Tensor dx = Tensor::empty(shape, DType::f32, g.device());
  if (g.on_gpu()) {
    gpu_kernels().arrange.spread_tokens(g.view(), dx.view(), batch, tokens, d, share);
    return dx;
  }
  const float* from = g.data<float>();
  float* to = dx.mutable_data<float>();
  for (int64_t row = 0; row < batch * tokens; ++row)
    for (int64_t j = 0; j < d; ++j) to[row * d + j] = from[row / tokens * d + j] * share;
  return dx;
}

}  // namespace

Tensor mean_tokens(const Tensor& x) {
  check(x.shape().rank() == 3 && x.size(1) > 0, "mean_tokens wants (batch, tokens, d), not shape {}",
        to_string(x.shape()));
  const float share = 1.0f / static_cast<float>(x.size(1));
  Tensor y = mean(x, share);
  if (wants_grad(x))
    record_backward(y, [slot = x.grad_slot(), shape = x.shape(), share](const Tensor& g) {
      accumulate_grad(slot, spread(g.to(DType::f32), shape, share));
    });
  return y;
}

namespace {

// Indices that the GPU has are not waited for.
void check_indices(const Tensor& indices, int64_t count) {
  check(indices.dtype() == DType::i64, "embedding: indices are i64, not {}", name_of(indices.dtype()));
  if (indices.on_gpu()) return;
  for (const int64_t index : indices.values<int64_t>())
    check(index >= 0 && index < count, "embedding: index {} is outside a table of {} rows", index, count);
}

// Indices lie where the table does.
Tensor gather_rows(const Tensor& table, const Tensor& indices) {
  const int64_t d = table.size(1), n = indices.numel();
  Tensor y = Tensor::empty({n, d}, DType::f32, table.device());
  if (table.on_gpu()) {
    gpu_kernels().arrange.gather_rows(table.view(), indices.view(), y.view(), n, d);
    return y;
  }
  const int64_t* index = indices.data<int64_t>();
  float* out = y.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i) {  // converted row by row: a table is large, and few of its rows are wanted
    const Tensor row = table.rows(index[i], index[i] + 1).to(DType::f32);
    std::copy_n(row.data<float>(), d, out + i * d);
  }
  return y;
}

// A table of zeros to which rows of g (n, d) f32 are added.
Tensor scatter_rows(const Tensor& g, const Tensor& indices, const Shape& table) {
  const int64_t d = table[1], n = indices.numel();
  Tensor sums = Tensor::zeros(table, DType::f32, g.device());
  if (g.on_gpu()) {
    gpu_kernels().arrange.scatter_rows(g.view(), indices.view(), sums.view(), n, d);
    return sums;
  }
  const int64_t* index = indices.data<int64_t>();
  const float* from = g.data<float>();
  float* to = sums.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < d; ++j) to[index[i] * d + j] += from[i * d + j];
  return sums;
}

}  // namespace

Tensor embedding(const Tensor& table, const Tensor& indices) {
  check(table.shape().rank() == 2, "an embedding's table has two dimensions, not shape {}",
        to_string(table.shape()));
  check_indices(indices, table.size(0));
  const Tensor rows = indices.to(table.device());
  Tensor y = gather_rows(table, rows);
  if (wants_grad(table))
    record_backward(y, [rows, slot = table.grad_slot(), shape = table.shape()](const Tensor& g) {
      accumulate_grad(slot, scatter_rows(g.to(DType::f32), rows, shape));
    });
  return y;
}

Tensor timestep_embedding(const Tensor& t, int64_t width) {
  check(width > 0 && width % 2 == 0, "a timestep embedding's width is even, not {}", width);
  const int64_t n = t.numel(), half = width / 2;
  Tensor y = Tensor::empty({n, width}, DType::f32, t.device());
  if (t.on_gpu()) {
    gpu_kernels().arrange.timestep_embedding(f32_view(t), y.view(), n, width);
    return y;
  }
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
