#include "nn/embeddings.h"

#include <algorithm>
#include <cmath>

#include "core/recording.h"
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

namespace {

// (count, half): sines, then cosines, of i·unit at each frequency.
std::vector<float> waves(int64_t count, double unit, int64_t half) {
  const int64_t quarter = half / 2;
  std::vector<float> result;
  result.reserve(static_cast<size_t>(count * half));
  for (int64_t i = 0; i < count; ++i)
    for (double (*wave)(double) :
         {static_cast<double (*)(double)>(std::sin), static_cast<double (*)(double)>(std::cos)})
      for (int64_t j = 0; j < quarter; ++j) {
        const double frequency = std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(quarter));
        result.push_back(static_cast<float>(wave(static_cast<double>(i) * unit * frequency)));
      }
  return result;
}

}  // namespace

Tensor sincos_positions(int64_t rows, int64_t columns, int64_t width, double row_unit, double column_unit) {
  check(width % 4 == 0, "positions in two dimensions need a width divisible by 4, not {}", width);
  // A row of the table for each column and, in the second half, for each row.
  const int64_t half = width / 2;
  const std::vector<float> across = waves(columns, column_unit, half), down = waves(rows, row_unit, half);
  Tensor result = Tensor::empty({rows * columns, width});
  float* out = result.mutable_data<float>();
  for (int64_t token = 0; token < rows * columns; ++token, out += width) {
    std::copy_n(across.data() + token % columns * half, half, out);
    std::copy_n(down.data() + token / columns * half, half, out + half);
  }
  return result;
}

Tensor PositionCache::get(int64_t rows, int64_t columns, int64_t width, double row_unit, double column_unit,
                          const Device& device) {
  const std::tuple key{rows, columns, device.is_gpu() ? device.index : -1};
  if (const auto found = grids_.find(key); found != grids_.end()) {
    keep_for_recording(found->second);
    return found->second;
  }
  const Tensor positions = sincos_positions(rows, columns, width, row_unit, column_unit).to(device);
  if (is_recording()) return positions;  // which belong to the recording
  if (grids_.size() >= most) grids_.clear();
  return grids_[key] = positions;
}

}  // namespace linnet::nn
