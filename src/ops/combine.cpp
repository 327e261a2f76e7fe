#include "ops/combine.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"

namespace linnet::ops {
namespace {

constexpr int64_t grain = 1 << 14;

void check_alike(std::string_view name, const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape() && a.dtype() == DType::f32 && b.dtype() == DType::f32,
        "{} takes f32 tensors of one shape, not {} {} and {} {}", name, name_of(a.dtype()),
        to_string(a.shape()), name_of(b.dtype()), to_string(b.shape()));
}

int64_t values_of_each(const Tensor& x) { return x.size(0) == 0 ? 0 : x.numel() / x.size(0); }

void combine_on_gpu(const std::vector<Term>& terms, bool clipped, Tensor& sum) {
  std::vector<Tensor> there;  // keeps what moves alive
  std::vector<GpuTerm> views;
  for (const Term& term : terms) {
    there.push_back(term.x.to(sum.device()));
    views.push_back({there.back().view(), term.factor});
  }
  gpu_kernels().combine.combine(views.data(), static_cast<int>(views.size()), clipped, sum.view(), sum.numel());
}

void combine_here(const std::vector<Term>& terms, bool clipped, Tensor& sum) {
  float* const out = sum.mutable_data<float>();
  parallel_for(sum.numel(), grain, [&](int64_t begin, int64_t end) {
    std::fill(out + begin, out + end, 0.0f);
    for (const Term& term : terms) {
      const float* const x = term.x.data<float>();
      for (int64_t i = begin; i < end; ++i) out[i] += term.factor * x[i];
    }
    if (clipped)
      for (int64_t i = begin; i < end; ++i) out[i] = std::clamp(out[i], -1.0f, 1.0f);
  });
}

}  // namespace

Tensor combine(const std::vector<Term>& given, bool clipped) {
  std::vector<Term> terms;
  std::ranges::copy_if(given, std::back_inserter(terms), [](const Term& term) { return term.x.defined(); });
  check(!terms.empty() && terms.size() <= 4, "{} tensors cannot be combined", terms.size());
  Device device;
  for (const Term& term : terms) {
    check_alike("combine", terms[0].x, term.x);
    if (term.x.on_gpu()) device = term.x.device();
  }
  Tensor sum = Tensor::empty(terms[0].x.shape(), DType::f32, device);
  device.is_gpu() ? combine_on_gpu(terms, clipped, sum) : combine_here(terms, clipped, sum);
  return sum;
}

Tensor combine_samples(const Tensor& a, const Tensor& b, const std::vector<float>& factors) {
  const int64_t n = a.size(0), width = values_of_each(a), b_width = values_of_each(b);
  check(b.size(0) == n && b_width <= width && static_cast<int64_t>(factors.size()) == 2 * n,
        "samples of shapes {} and {} cannot be combined with {} factors", to_string(a.shape()),
        to_string(b.shape()), factors.size());
  const Device device = device_of(a, b);
  Tensor sum = Tensor::empty(a.shape(), DType::f32, device);
  if (device.is_gpu()) {
    const Tensor first = a.to(device), second = b.to(device), there = Tensor::from(factors).to(device);
    gpu_kernels().combine.combine_rows(first.view(), second.view(), there.view(), sum.view(), n, width,
                                       b_width);
    return sum;
  }
  const float *from_a = a.data<float>(), *from_b = b.data<float>();
  float* const out = sum.mutable_data<float>();
  parallel_for(n, 4, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const float first = factors[static_cast<size_t>(2 * s)], second = factors[static_cast<size_t>(2 * s + 1)];
      const float *x = from_a + s * width, *y = from_b + s * b_width;
      float* const row = out + s * width;
      for (int64_t i = 0; i < b_width; ++i) row[i] = first * x[i] + second * y[i];
      std::copy(x + b_width, x + width, row + b_width);
    }
  });
  return sum;
}

Tensor guided(const Tensor& prediction, float scale, int64_t guided) {
  const Shape& shape = prediction.shape();
  check(shape.rank() == 4 && shape[0] % 2 == 0 && guided >= 0 && guided <= shape[1],
        "{} channels of predictions of shape {} cannot be guided", guided, to_string(shape));
  const int64_t n = shape[0] / 2, width = values_of_each(prediction), count = guided * shape[2] * shape[3];
  Tensor result = Tensor::empty({n, shape[1], shape[2], shape[3]}, DType::f32, prediction.device());
  if (prediction.on_gpu()) {
    gpu_kernels().combine.guide(prediction.view(), scale, count, result.view(), n, width);
    return result;
  }
  const float *wanted = prediction.data<float>(), *none = wanted + n * width;
  float* const out = result.mutable_data<float>();
  for (int64_t i = 0; i < n * width; ++i)
    out[i] = i % width < count ? none[i] + scale * (wanted[i] - none[i]) : wanted[i];
  return result;
}

Tensor channels(const Tensor& x, int64_t first, int64_t count) {
  const Shape& shape = x.shape();
  check(shape.rank() == 4 && first >= 0 && count >= 0 && first + count <= shape[1],
        "there are no channels {} to {} in shape {}", first, first + count, to_string(shape));
  if (count == shape[1]) return x;
  Tensor result = Tensor::empty({shape[0], count, shape[2], shape[3]}, x.dtype(), x.device());
  const int64_t area = shape[2] * shape[3], element = static_cast<int64_t>(size_of(x.dtype()));
  if (x.on_gpu()) {
    gpu_kernels().arrange.copy_columns(x.view(), shape[1] * area, first * area, result.view(), count * area, 0,
                                       count * area, shape[0], element);
    return result;
  }
  const auto* const from = static_cast<const char*>(x.raw());
  auto* const to = static_cast<char*>(result.mutable_raw());
  for (int64_t s = 0; s < shape[0]; ++s)
    std::memcpy(to + s * count * area * element, from + (s * shape[1] + first) * area * element,
                static_cast<size_t>(count * area * element));
  return result;
}

Tensor add_learned_noise(const Tensor& mean, const Tensor& v, const Tensor& noise, float low, float high) {
  check_alike("add_learned_noise", mean, v);
  check_alike("add_learned_noise", mean, noise);
  const Device device = v.on_gpu() ? v.device() : device_of(mean, noise);
  Tensor result = Tensor::empty(mean.shape(), DType::f32, device);
  if (device.is_gpu()) {
    const Tensor m = mean.to(device), part = v.to(device), z = noise.to(device);
    gpu_kernels().combine.add_learned_noise(m.view(), part.view(), z.view(), low, high, result.view(),
                                            result.numel());
    return result;
  }
  const float *m = mean.data<float>(), *part = v.data<float>(), *z = noise.data<float>();
  float* const out = result.mutable_data<float>();
  parallel_for(result.numel(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float f = 0.5f * (part[i] + 1.0f);
      out[i] = m[i] + std::exp(0.5f * (f * high + (1.0f - f) * low)) * z[i];
    }
  });
  return result;
}

namespace {

void copy_to(Tensor& to, size_t offset, const Tensor& from) {
  if (!to.on_gpu())
    std::memcpy(static_cast<char*>(to.mutable_raw()) + offset, from.raw(), from.bytes());
  else if (from.on_gpu())
    gpu().copy(to.view().as<char>() + offset, from.view().data, from.bytes());
  else
    gpu().upload(to.view().as<char>() + offset, from.raw(), from.bytes());
}

}  // namespace

Tensor concat_rows(const std::vector<Tensor>& parts) {
  check(!parts.empty(), "there are no rows to put together");
  std::vector<int64_t> extents(parts[0].shape().begin(), parts[0].shape().end());
  Device device;
  int64_t rows = 0;
  for (const Tensor& part : parts) {
    extents[0] = part.size(0);
    check(part.shape() == Shape(extents) && part.dtype() == parts[0].dtype(),
          "rows of {} {} and of {} {} cannot follow each other", name_of(parts[0].dtype()),
          to_string(parts[0].shape()), name_of(part.dtype()), to_string(part.shape()));
    rows += part.size(0);
    if (part.on_gpu()) device = part.device();
  }
  extents[0] = rows;
  Tensor result = Tensor::empty(Shape(extents), parts[0].dtype(), device);
  size_t offset = 0;
  for (const Tensor& part : parts) {
    copy_to(result, offset, part);
    offset += part.bytes();
  }
  return result;
}

}  // namespace linnet::ops
