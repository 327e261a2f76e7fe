#include "ops/group_norm.h"

#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/group_norm_cpu.h"

namespace linnet::ops {
namespace {

constexpr int64_t part_pixels = 4096;  // summed apart, so that a result does not depend on the threads

// Of one group out of its channels' sums about their pivots: E(x) and E((x − E(x))²), in f64.
void finish_group(const double* sum, const double* squares, const float* pivot, int64_t channels, double pixels,
                  float* moments) {
  double mean = 0;
  for (int64_t c = 0; c < channels; ++c) mean += (static_cast<double>(pivot[c]) + sum[c] / pixels);
  mean /= static_cast<double>(channels);
  double variance = 0;
  for (int64_t c = 0; c < channels; ++c) {
    const double own = sum[c] / pixels, apart = static_cast<double>(pivot[c]) + own - mean;
    variance += squares[c] / pixels - own * own + apart * apart;
  }
  moments[0] = static_cast<float>(mean);
  moments[1] = static_cast<float>(std::max(0.0, variance / static_cast<double>(channels)));
}

void check_groups(const Tensor& x, int64_t groups) {
  check(x.shape().rank() == 4 && groups > 0 && x.size(3) % groups == 0,
        "group norm: shape {} does not fall into {} groups of channels", to_string(x.shape()), groups);
  check_type("group norm", x);
}

}  // namespace

Tensor group_moments(const Tensor& x, int64_t groups) {
  check_groups(x, groups);
  const int64_t n = x.size(0), pixels = x.size(1) * x.size(2), channels = x.size(3), each = channels / groups;
  check(pixels > 0, "group norm: a picture of no pixels has no mean");
  Tensor moments = Tensor::empty({n, groups, 2}, DType::f32, x.device());
  if (x.on_gpu()) {
    gpu_kernels().picture.group_moments(x.view(), moments.view(), n, pixels, channels, groups);
    return moments;
  }
  const int64_t parts = (pixels + part_pixels - 1) / part_pixels;
  Tensor pivots = Tensor::empty({n, channels});
  for (int64_t i = 0; i < n; ++i) {  // a channel's first value is near all others, compared with 0
    const Tensor first = x.rows(i, i + 1).reshape({pixels, channels}).rows(0, 1).to(DType::f32);
    std::copy_n(first.data<float>(), channels, pivots.mutable_data<float>() + i * channels);
  }
  const float* pivot = pivots.data<float>();
  std::vector<double> sums(static_cast<size_t>(n * parts * 2 * channels));
  parallel_for(n * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t sample = task / parts, first = task % parts * part_pixels;
      cpu::add_channel_sums(element(x, (sample * pixels + first) * channels), x.dtype(),
                            pivot + sample * channels, std::min(part_pixels, pixels - first), channels,
                            sums.data() + task * 2 * channels);
    }
  });
  float* out = moments.mutable_data<float>();
  for (int64_t sample = 0; sample < n; ++sample) {
    double* total = sums.data() + sample * parts * 2 * channels;
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t i = 0; i < 2 * channels; ++i) total[i] += total[part * 2 * channels + i];
    for (int64_t g = 0; g < groups; ++g)
      finish_group(total + g * each, total + channels + g * each, pivot + sample * channels + g * each, each,
                   static_cast<double>(pixels), out + (sample * groups + g) * 2);
  }
  return moments;
}

Tensor normalize_groups(Tensor x, const Tensor& moments, const Tensor& weight, const Tensor& bias,
                        float epsilon, bool silu) {
  check(moments.shape().rank() == 3 && moments.size(2) == 2, "group norm: moments have no shape {}",
        to_string(moments.shape()));
  const int64_t groups = moments.size(1);
  check_groups(x, groups);
  const int64_t n = x.size(0), pixels = x.size(1) * x.size(2), channels = x.size(3), each = channels / groups;
  check(moments.size(0) == n || moments.size(0) == 1, "group norm: moments of {} pictures do not fit {}",
        moments.size(0), n);
  check(weight.numel() == channels && bias.numel() == channels,
        "group norm: {} channels do not fit weight and bias of {} and {}", channels, weight.numel(),
        bias.numel());
  Tensor y = x.shares_memory() || x.read_only() ? Tensor::empty(x.shape(), x.dtype(), x.device()) : x;
  if (x.on_gpu()) {
    const Tensor own = moments.to(x.device()), w = weight.to(x.device()), b = bias.to(x.device());
    gpu_kernels().picture.normalize_groups(x.view(), own.view(), moments.size(0) == 1, w.view(), b.view(),
                                           epsilon, silu, y.view(), n, pixels, channels, groups);
    return y;
  }
  std::vector<float> gain(static_cast<size_t>(n * channels)), shift(gain.size());
  const float *m = moments.data<float>(), *w = weight.data<float>(), *b = bias.data<float>();
  for (int64_t i = 0; i < n * channels; ++i) {
    const int64_t sample = moments.size(0) == 1 ? 0 : i / channels, c = i % channels;
    const float* of_group = m + (sample * groups + c / each) * 2;
    gain[static_cast<size_t>(i)] = w[c] / std::sqrt(of_group[1] + epsilon);
    shift[static_cast<size_t>(i)] = b[c] - of_group[0] * gain[static_cast<size_t>(i)];
  }
  void* out = y.mutable_raw();
  const auto bytes = static_cast<int64_t>(size_of(x.dtype()));
  parallel_for(n * pixels, 64, [&](int64_t begin, int64_t end) {
    while (begin < end) {  // one sample's pixels at a time
      const int64_t sample = begin / pixels, stop = std::min(end, (sample + 1) * pixels);
      cpu::scale_channels(element(x, begin * channels), static_cast<char*>(out) + begin * channels * bytes,
                          x.dtype(), gain.data() + sample * channels, shift.data() + sample * channels, silu,
                          stop - begin, channels);
      begin = stop;
    }
  });
  return y;
}

}  // namespace linnet::ops
