// Two passes, each output sample a weighted sum of the input samples under the filter; weights are fixed-point
// numbers with 22 bits and every pass rounds to 8 bits, both as in Pillow (src/libImaging/Resample.c).
#include "io/resize.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"

namespace linnet {
namespace {

struct Filter {
  double (*weight)(double);
  double support;
};

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

constexpr int precision = 22;

// The input samples that make one output sample.
struct Tap {
  int64_t first = 0;
  std::vector<int32_t> weights;
};

std::vector<Tap> make_taps(int64_t from, int64_t to, const Filter& filter) {
  const double scale = static_cast<double>(from) / static_cast<double>(to), widening = std::max(scale, 1.0);
  const double support = filter.support * widening;
  std::vector<Tap> taps(static_cast<size_t>(to));
  for (int64_t i = 0; i < to; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0);
    const auto last = std::min<int64_t>(static_cast<int64_t>(centre + support + 0.5), from);
    std::vector<double> weights;
    double sum = 0;
    for (int64_t x = first; x < last; ++x) {
      weights.push_back(filter.weight((static_cast<double>(x) - centre + 0.5) * (1.0 / widening)));
      sum += weights.back();
    }
    Tap& tap = taps[static_cast<size_t>(i)];
    tap.first = first;
    for (double weight : weights) {
      if (sum != 0.0) weight /= sum;
      tap.weights.push_back(static_cast<int32_t>(weight * (1 << precision) + (weight < 0 ? -0.5 : 0.5)));
    }
  }
  return taps;
}

// One output pixel; stride is the distance in bytes between the input pixels that it is made of.
void weigh(const uint8_t* in, int64_t stride, const Tap& tap, uint8_t* out) {
  int32_t sums[3] = {1 << (precision - 1), 1 << (precision - 1), 1 << (precision - 1)};
  in += tap.first * stride;
  for (const int32_t weight : tap.weights) {
    for (int c = 0; c < 3; ++c) sums[c] += in[c] * weight;
    in += stride;
  }
  for (int c = 0; c < 3; ++c) out[c] = static_cast<uint8_t>(std::clamp(sums[c] >> precision, 0, 255));
}

Image resize(const Image& image, int64_t width, int64_t height, const Filter& filter) {
  check(image.width > 0 && image.height > 0, "a picture without pixels cannot be resized");
  check(width > 0 && height > 0 && width <= max_image_side && height <= max_image_side &&
            width * height <= max_image_pixels,
        "a picture cannot be resized to {} x {} pixels", width, height);
  Image wide = image;
  if (width != image.width) {
    wide = {width, image.height, std::vector<uint8_t>(static_cast<size_t>(width * image.height * 3))};
    const std::vector<Tap> taps = make_taps(image.width, width, filter);
    parallel_for(image.height, std::max<int64_t>(1, (1 << 14) / width), [&](int64_t begin, int64_t end) {
      for (int64_t y = begin; y < end; ++y)
        for (int64_t x = 0; x < width; ++x)
          weigh(image.at(0, y), 3, taps[static_cast<size_t>(x)], wide.at(x, y));
    });
  }
  if (height == image.height) return wide;
  Image result{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  const std::vector<Tap> taps = make_taps(image.height, height, filter);
  parallel_for(height, std::max<int64_t>(1, (1 << 14) / width), [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y)
      for (int64_t x = 0; x < width; ++x)
        weigh(wide.at(x, 0), width * 3, taps[static_cast<size_t>(y)], result.at(x, y));
  });
  return result;
}

}  // namespace

Image resize_bicubic(const Image& image, int64_t width, int64_t height) {
  return resize(image, width, height, {&bicubic, 2.0});
}

Image resize_box(const Image& image, int64_t width, int64_t height) {
  return resize(image, width, height, {&box, 0.5});
}

Image crop(const Image& image, int64_t left, int64_t top, int64_t width, int64_t height) {
  check(left >= 0 && top >= 0 && width > 0 && height > 0 && left + width <= image.width &&
            top + height <= image.height,
        "a part of {} x {} pixels at ({}, {}) is not inside a picture of {} x {}", width, height, left, top,
        image.width, image.height);
  Image result{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  for (int64_t y = 0; y < height; ++y) std::copy_n(image.at(left, top + y), width * 3, result.at(0, y));
  return result;
}

Image center_crop(const Image& image, int64_t size) {
  check(size > 0, "a picture cannot be cropped to {} pixels", size);
  check(image.width > 0 && image.height > 0, "a picture without pixels cannot be cropped");
  Image current = image;
  while (std::min(current.width, current.height) >= 2 * size)
    current = resize_box(current, current.width / 2, current.height / 2);
  const double scale = static_cast<double>(size) / static_cast<double>(std::min(current.width, current.height));
  // Python's round(): halves go to the even number, which is nearbyint's default too.
  const auto scaled = [&](int64_t side) {
    return static_cast<int64_t>(std::nearbyint(static_cast<double>(side) * scale));
  };
  current = resize_bicubic(current, scaled(current.width), scaled(current.height));
  return crop(current, (current.width - size) / 2, (current.height - size) / 2, size, size);
}

Image cover_crop(const Image& image, int64_t width, int64_t height) {
  check(image.width > 0 && image.height > 0, "a picture without pixels cannot be cropped");
  const double by_width = static_cast<double>(width) / static_cast<double>(image.width);
  const double by_height = static_cast<double>(height) / static_cast<double>(image.height);
  // In this order of operations, so that rounding loses no pixel where it loses none in Python.
  const auto scaled = [](int64_t side, int64_t to, int64_t from) {
    return static_cast<int64_t>(static_cast<double>(side) * static_cast<double>(to) /
                                static_cast<double>(from));
  };
  const Image covering =
      by_height > by_width
          ? resize_bicubic(image, std::max(width, scaled(image.width, height, image.height)), height)
          : resize_bicubic(image, width, std::max(height, scaled(image.height, width, image.width)));
  // torchvision's CenterCrop, which rounds halves to even.
  const auto margin = [](int64_t side, int64_t part) {
    return static_cast<int64_t>(std::nearbyint(static_cast<double>(side - part) / 2));
  };
  return crop(covering, margin(covering.width, width), margin(covering.height, height), width, height);
}

Image flip_horizontal(const Image& image) {
  Image result = image;
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x) std::copy_n(image.at(x, y), 3, result.at(image.width - 1 - x, y));
  return result;
}

}  // namespace linnet
