#include "ops/pool2d.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/onednn.h"

namespace linnet::ops {
namespace {

using namespace onednn;

void check_picture(const Tensor& x) {
  check(x.shape().rank() == 4 && x.numel() > 0 && x.dtype() == DType::f32,
        "pooling works on pictures in f32, not on {} of shape {}", name_of(x.dtype()), to_string(x.shape()));
}

dnnl::pooling_forward make_pooling(dnnl::algorithm algorithm, const memory::desc& x, const memory::desc& y,
                                   int64_t size, int64_t stride, int64_t padding) {
  const auto kind = dnnl::prop_kind::forward_inference;
  const memory::dims strides{stride, stride}, kernel{size, size}, zeros{padding, padding};
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::pooling_forward(
      {engine(), kind, algorithm, x, y, strides, kernel, {0, 0}, zeros, zeros, with_own_memory()});
#else
  return dnnl::pooling_forward(
      {{kind, algorithm, x, y, strides, kernel, zeros, zeros}, with_own_memory(), engine()});
#endif
}

// Where a target pixel lies between two source pixels, and how near to the second: by corners, not centres.
struct Between {
  int64_t first, second;
  float share;
};
std::vector<Between> places(int64_t from, int64_t to) {
  std::vector<Between> result;
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  for (int64_t i = 0; i < to; ++i) {
    const float at = static_cast<float>(i) * scale;
    const int64_t first = std::min(static_cast<int64_t>(at), from - 1);
    result.push_back({first, std::min(first + 1, from - 1), at - static_cast<float>(first)});
  }
  return result;
}

}  // namespace

Tensor pool2d(const Tensor& x, Pooling pooling, int64_t size, int64_t stride, int64_t padding) {
  check_picture(x);
  const auto extent = [&](int64_t side) { return (side + 2 * padding - size) / stride + 1; };
  check(size > 0 && stride > 0 && padding >= 0 && padding < size && x.size(1) + 2 * padding >= size &&
            x.size(2) + 2 * padding >= size,
        "a window of {} pixels does not fit shape {}", size, to_string(x.shape()));
  Tensor y =
      Tensor::empty({x.size(0), extent(x.size(1)), extent(x.size(2)), x.size(3)}, DType::f32, x.device());
  if (x.on_gpu()) {
    gpu_kernels().picture.pool(x.view(), y.view(), pooling == Pooling::largest, x.size(0), x.size(1), x.size(2),
                               x.size(3), size, stride, padding, y.size(1), y.size(2));
    return y;
  }
  const auto algorithm =
      pooling == Pooling::largest ? dnnl::algorithm::pooling_max : dnnl::algorithm::pooling_avg_exclude_padding;
  const memory::desc in = picture(x.shape(), x.dtype()), out = picture(y.shape(), y.dtype());
  expect_room_for_code();
  run(translated([&] { return make_pooling(algorithm, in, out, size, stride, padding); }),
      {{DNNL_ARG_SRC, wrap(in, x.raw())}, {DNNL_ARG_DST, wrap(out, y.mutable_raw())}});
  return y;
}

namespace {

Tensor join_on_gpu(const std::vector<Tensor>& parts, int64_t channels) {
  Tensor result = Tensor::empty(parts[0].shape().with_last(channels), DType::f32, parts[0].device());
  int64_t into = 0;
  for (const Tensor& part : parts) {
    const int64_t own = part.size(3);
    gpu_kernels().arrange.copy_columns(part.view(), own, 0, result.view(), channels, into, own,
                                       part.shape().rows(), sizeof(float));
    into += own;
  }
  return result;
}

}  // namespace

Tensor join_channels(const std::vector<Tensor>& parts) {
  check(!parts.empty(), "no channels to join");
  int64_t channels = 0;
  for (const Tensor& part : parts) {
    check_picture(part);
    check(part.shape().with_last(1) == parts[0].shape().with_last(1),
          "pictures of shapes {} and {} cannot be joined", to_string(part.shape()),
          to_string(parts[0].shape()));
    channels += part.size(3);
  }
  if (parts[0].on_gpu()) return join_on_gpu(parts, channels);
  Tensor result = Tensor::empty(parts[0].shape().with_last(channels));
  float* to = result.mutable_data<float>();
  parallel_for(result.numel() / channels, 64, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      float* row = to + pixel * channels;
      for (const Tensor& part : parts) {
        const int64_t own = part.size(3);
        std::memcpy(row, part.data<float>() + pixel * own, static_cast<size_t>(own) * sizeof(float));
        row += own;
      }
    }
  });
  return result;
}

Tensor resize_bilinear(const Tensor& x, int64_t height, int64_t width) {
  check_picture(x);
  check(height > 0 && width > 0, "a picture of {}x{} pixels cannot be", height, width);
  const int64_t rows = x.size(1), columns = x.size(2), channels = x.size(3);
  Tensor result = Tensor::empty({x.size(0), height, width, channels}, DType::f32, x.device());
  if (x.on_gpu()) {
    gpu_kernels().picture.resize_bilinear(x.view(), result.view(), x.size(0), rows, columns, channels, height,
                                          width);
    return result;
  }
  const std::vector<Between> down = places(rows, height), across = places(columns, width);
  float* to = result.mutable_data<float>();
  const float* from = x.data<float>();
  parallel_for(x.size(0) * height, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Between& y = down[static_cast<size_t>(i % height)];
      const float* upper = from + (i / height * rows + y.first) * columns * channels;
      const float* lower = from + (i / height * rows + y.second) * columns * channels;
      float* row = to + i * width * channels;
      for (int64_t j = 0; j < width; ++j) {
        const Between& z = across[static_cast<size_t>(j)];
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t left = z.first * channels + c, right = z.second * channels + c;
          const float above = upper[left] * (1 - z.share) + upper[right] * z.share;
          const float below = lower[left] * (1 - z.share) + lower[right] * z.share;
          row[j * channels + c] = above * (1 - y.share) + below * y.share;
        }
      }
    }
  });
  return result;
}

}  // namespace linnet::ops
