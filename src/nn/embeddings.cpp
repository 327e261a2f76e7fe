#include "nn/embeddings.h"

#include <cmath>

#include "ops/activation.h"
#include "ops/arrange.h"

namespace linnet::nn {

PatchEmbed::PatchEmbed(int64_t channels, int64_t patch_size, int64_t width) : patch(patch_size) {
  proj.weight = {{width, channels, patch, patch}, Init::xavier_uniform()};
  proj.bias = {{width}, Init::zero()};
}

Tensor PatchEmbed::forward(const Tensor& x) const { return proj.forward(ops::patchify(x, patch), DType::f32); }

namespace {
constexpr int64_t frequency_width = 256;
}

TimestepEmbedder::TimestepEmbedder(int64_t width, Init of_second)
    : first(frequency_width, width, Init::normal(0.02f)), second(width, width, of_second) {}

Tensor TimestepEmbedder::forward(const Tensor& t) const {
  const Tensor waves = ops::timestep_embedding(t, frequency_width);
  return second.forward(ops::silu(first.forward(waves, DType::f32), DType::f32), DType::f32);
}

LabelEmbedder::LabelEmbedder(int64_t classes, bool null_class, int64_t width)
    : table({classes + (null_class ? 1 : 0), width}, Init::normal(0.02f)) {}

Tensor LabelEmbedder::forward(const Tensor& y) const { return ops::embedding(table.value, y); }

Tensor sincos_positions(int64_t rows, int64_t columns, int64_t width, double row_unit, double column_unit) {
  check(width % 4 == 0, "positions in two dimensions need a width divisible by 4, not {}", width);
  const int64_t quarter = width / 4;
  Tensor result = Tensor::empty({rows * columns, width});
  float* out = result.mutable_data<float>();
  for (int64_t token = 0; token < rows * columns; ++token)
    for (int64_t i = 0; i < quarter; ++i) {
      const double frequency = std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(quarter));
      const double x = static_cast<double>(token % columns) * column_unit * frequency;
      const double y = static_cast<double>(token / columns) * row_unit * frequency;
      float* row = out + token * width;
      row[i] = static_cast<float>(std::sin(x));
      row[quarter + i] = static_cast<float>(std::cos(x));
      row[2 * quarter + i] = static_cast<float>(std::sin(y));
      row[3 * quarter + i] = static_cast<float>(std::cos(y));
    }
  return result;
}

}  // namespace linnet::nn
