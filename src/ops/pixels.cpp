#include "ops/pixels.h"

#include <cstring>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"

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
  check_type("pixels", dtype, planes.device());
  const int64_t n = planes.size(0), channels = planes.size(1), height = planes.size(2), width = planes.size(3);
  Tensor result = Tensor::empty({n, height, width, channels}, dtype, planes.device());
  if (planes.on_gpu()) {
    gpu_kernels().picture.to_pixels(planes.view(), result.view(), n, channels, height * width);
    return result;
  }
  const Tensor source = planes.to(DType::f32);
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
  Tensor result = Tensor::empty({n, channels, height, width}, DType::f32, pixels.device());
  if (pixels.on_gpu()) {
    gpu_kernels().picture.to_planes(pixels.view(), result.view(), n, channels, height * width);
    return result;
  }
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
  if (part.on_gpu())
    return gpu_kernels().picture.interleave(part.view(), row, column, picture.view(), n, height, width,
                                            channels);
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
  Tensor result = Tensor::empty(shape, picture.dtype(), picture.device());
  for (int64_t i = 0; i < n; ++i)
    copy_rows(crop_rows(picture.rows(i, i + 1), begin, end), result.rows(i, i + 1), 0);
  return result;
}

void copy_rows(const Tensor& from, Tensor to, int64_t first) {
  check_picture(from);
  check_picture(to);
  const int64_t rows = from.size(1), n = to.size(0);
  check(n == 1 && first >= 0 && first + rows <= to.size(1) && from.numel() == rows * to.numel() / to.size(1) &&
            from.dtype() == to.dtype() && from.device() == to.device(),
        "rows of shape {} cannot be written to {} from row {} on", to_string(from.shape()),
        to_string(to.shape()), first);
  const size_t offset = to.bytes() / static_cast<size_t>(to.size(1)) * static_cast<size_t>(first);
  if (to.on_gpu())
    gpu().copy(to.view().as<char>() + offset, from.view().data, from.bytes());
  else
    std::memcpy(static_cast<char*>(to.mutable_raw()) + offset, from.raw(), from.bytes());
}

}  // namespace linnet::ops
