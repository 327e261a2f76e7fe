#include "ops/pixels.h"

#include <cstring>

#include "core/parallel.h"
#include "ops/element.h"

namespace linnet::ops {
namespace {

void check_picture(const Tensor& x) {
  check(x.shape().rank() == 4, "a picture has four dimensions, not shape {}", to_string(x.shape()));
}

// One row of pixels at a time: few channels, so that the channels' rows are read side by side.
template <class T>
void gather_channels(const float* planes, int64_t plane, int64_t channels, int64_t width, T* pixels) {
  for (int64_t x = 0; x < width; ++x)
    for (int64_t c = 0; c < channels; ++c) pixels[x * channels + c] = static_cast<T>(planes[c * plane + x]);
}

template <class T>
void scatter_channels(const T* pixels, int64_t plane, int64_t channels, int64_t width, float* planes) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t x = 0; x < width; ++x) planes[c * plane + x] = static_cast<float>(pixels[x * channels + c]);
}

}  // namespace

Tensor to_pixels(const Tensor& planes, DType dtype) {
  check_picture(planes);
  check_type("pixels", dtype);
  const Tensor source = planes.to(DType::f32);
  const int64_t n = source.size(0), channels = source.size(1), height = source.size(2), width = source.size(3);
  Tensor result = Tensor::empty({n, height, width, channels}, dtype);
  const float* from = source.data<float>();
  parallel_for(n * height, 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* start = from + row / height * channels * height * width + row % height * width;
      void* to = element(result, row * width * channels);
      if (dtype == DType::bf16)
        gather_channels(start, height * width, channels, width, static_cast<bfloat16*>(to));
      else
        gather_channels(start, height * width, channels, width, static_cast<float*>(to));
    }
  });
  return result;
}

Tensor to_planes(const Tensor& pixels) {
  check_picture(pixels);
  check_type("planes", pixels);
  const int64_t n = pixels.size(0), height = pixels.size(1), width = pixels.size(2), channels = pixels.size(3);
  Tensor result = Tensor::empty({n, channels, height, width});
  float* to = result.mutable_data<float>();
  parallel_for(n * height, 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* start = to + row / height * channels * height * width + row % height * width;
      const void* from = element(pixels, row * width * channels);
      if (pixels.dtype() == DType::bf16)
        scatter_channels(static_cast<const bfloat16*>(from), height * width, channels, width, start);
      else
        scatter_channels(static_cast<const float*>(from), height * width, channels, width, start);
    }
  });
  return result;
}

void interleave(const Tensor& part, int64_t row, int64_t column, Tensor& picture) {
  check_picture(part);
  const int64_t n = part.size(0), height = part.size(1), width = part.size(2), channels = part.size(3);
  check(picture.shape() == Shape({n, 2 * height, 2 * width, channels}) && picture.dtype() == part.dtype() &&
            (row == 0 || row == 1) && (column == 0 || column == 1),
        "pixels of shape {} cannot be every second one of {}", to_string(part.shape()),
        to_string(picture.shape()));
  const size_t pixel = static_cast<size_t>(channels) * size_of(part.dtype());
  auto* to = static_cast<char*>(picture.mutable_raw());
  const auto* from = static_cast<const char*>(part.raw());
  parallel_for(n * height, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t target = (2 * i + row) * 2 * width + column;
      for (int64_t x = 0; x < width; ++x)
        std::memcpy(to + static_cast<size_t>(target + 2 * x) * pixel,
                    from + static_cast<size_t>(i * width + x) * pixel, pixel);
    }
  });
}

Tensor crop_rows(const Tensor& picture, int64_t begin, int64_t end) {
  check_picture(picture);
  const int64_t n = picture.size(0), rows = picture.size(1), width = picture.size(2),
                channels = picture.size(3);
  check(begin >= 0 && begin < end && end <= rows, "no rows {} to {} of shape {}", begin, end,
        to_string(picture.shape()));
  if (end - begin == rows) return picture;
  const Shape shape{n, end - begin, width, channels};
  if (n == 1) return picture.reshape({rows, width, channels}).rows(begin, end).reshape(shape);
  Tensor result = Tensor::empty(shape, picture.dtype());
  const auto each = static_cast<size_t>((end - begin) * width * channels) * size_of(picture.dtype());
  for (int64_t i = 0; i < n; ++i)
    std::memcpy(element(result, i * (end - begin) * width * channels),
                element(picture, (i * rows + begin) * width * channels), each);
  return result;
}

}  // namespace linnet::ops
