#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/layer_norm_modulate_cpu.cpp"
#include <hwy/foreach_target.h>

#include <cmath>

#include "core/parallel.h"
#include "ops/element.h"
#include "ops/layer_norm_modulate_cpu.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE float first_of(const T* row) {
  return static_cast<float>(row[0]);
}

// Deviations are taken from a row's first value before its mean is formed: of values close together that
// difference is exact, while a mean in f32 could be off by more than their deviation.
template <class D, class T>
HWY_INLINE Vec<D> normalised(D d, const T* x, float first, float mean, float inverse_std) {
  return hn::Mul(hn::Sub(hn::Sub(load(d, x), hn::Set(d, first)), hn::Set(d, mean)), hn::Set(d, inverse_std));
}

// Rows of one sample: all share shift and scale.
void norm_rows(const void* x_, DType x_type, const float* shift, const float* scale, float epsilon,
               int64_t rows, int64_t n, void* y_, DType y_type, float* statistics) {
  const float inverse_n = 1.0f / static_cast<float>(n);
  with_type(x_, x_type, [&](auto* x) HWY_ATTR {
    with_type(y_, y_type, [&](auto* y) HWY_ATTR {
      for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
        const float first = first_of(x);
        const float mean = inverse_n * sum_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
                             return hn::Sub(load(d, x + i), hn::Set(d, first));
                           });
        const float variance = inverse_n * sum_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
                                 const auto v = normalised(d, x + i, first, mean, 1.0f);
                                 return hn::Mul(v, v);
                               });
        const float inverse_std = 1.0f / std::sqrt(variance + epsilon);
        statistics[2 * r] = mean;
        statistics[2 * r + 1] = inverse_std;
        for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
          const auto hat = normalised(d, x + i, first, mean, inverse_std);
          const auto gain = hn::Add(load(d, scale + i), hn::Set(d, 1.0f));
          store(hn::MulAdd(hat, gain, load(d, shift + i)), d, y + i);
        });
      }
    });
  });
}

// dx = (g' − mean(g') − x̂·mean(g'·x̂))/σ with g' = g(1 + scale); dshift = Σ g, dscale = Σ g·x̂ over the rows.
void norm_rows_backward(const void* g_, DType g_type, const void* x_, DType x_type, const float* scale,
                        const float* statistics, int64_t rows, int64_t n, void* dx_, float* dshift,
                        float* dscale) {
  const float inverse_n = 1.0f / static_cast<float>(n);
  for (int64_t i = 0; i < n; ++i) dshift[i] = dscale[i] = 0.0f;
  with_type(g_, g_type, [&](auto* g) HWY_ATTR {
    with_type(x_, x_type, [&](auto* x) HWY_ATTR {
      with_type(dx_, x_type, [&](auto* dx) HWY_ATTR {
        for (int64_t r = 0; r < rows; ++r, g += n, x += n, dx += n) {
          const float first = first_of(x), mean = statistics[2 * r], inverse_std = statistics[2 * r + 1];
          const float total = sum_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
            return hn::Mul(load(d, g + i), hn::Add(load(d, scale + i), hn::Set(d, 1.0f)));
          });
          const float along = sum_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
            const auto hat = normalised(d, x + i, first, mean, inverse_std);
            const auto gi = load(d, g + i);
            store(hn::Add(load(d, dshift + i), gi), d, dshift + i);
            store(hn::MulAdd(gi, hat, load(d, dscale + i)), d, dscale + i);
            return hn::Mul(hn::Mul(gi, hn::Add(load(d, scale + i), hn::Set(d, 1.0f))), hat);  // Σ g'·x̂
          });
          for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
            const auto hat = normalised(d, x + i, first, mean, inverse_std);
            const auto gain = hn::Mul(load(d, g + i), hn::Add(load(d, scale + i), hn::Set(d, 1.0f)));
            const auto centred = hn::Sub(gain, hn::Set(d, total * inverse_n));
            const auto v = hn::NegMulAdd(hat, hn::Set(d, along * inverse_n), centred);
            store(hn::Mul(v, hn::Set(d, inverse_std)), d, dx + i);
          });
        }
      });
    });
  });
}

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace linnet::ops::cpu {

HWY_EXPORT(norm_rows);
HWY_EXPORT(norm_rows_backward);

void layer_norm_modulate_forward(const Tensor& x, const Tensor& shift, const Tensor& scale, float epsilon,
                                 Tensor& y, Tensor& statistics) {
  const int64_t tokens = x.size(1), n = x.size(2);
  const float *shift_data = shift.data<float>(), *scale_data = scale.data<float>();
  float* stat = statistics.mutable_data<float>();
  parallel_for(x.size(0) * tokens, 16, [&](int64_t begin, int64_t end) {
    while (begin < end) {  // one sample's rows at a time
      const int64_t sample = begin / tokens, stop = std::min(end, (sample + 1) * tokens);
      HWY_DYNAMIC_DISPATCH(norm_rows)
      (element(x, begin * n), x.dtype(), shift_data + sample * n, scale_data + sample * n, epsilon,
       stop - begin, n, element(y, begin * n), y.dtype(), stat + 2 * begin);
      begin = stop;
    }
  });
}

void layer_norm_modulate_backward(const Tensor& g, const Tensor& x, const Tensor& scale,
                                  const Tensor& statistics, Tensor& dx, Tensor& dshift, Tensor& dscale) {
  const int64_t batch = x.size(0), tokens = x.size(1), n = x.size(2);
  // Parts of a sample are summed apart and then in order, so that the result does not depend on the threads.
  constexpr int64_t part_rows = 256;
  const int64_t parts = std::max<int64_t>(1, (tokens + part_rows - 1) / part_rows);
  Tensor partial = Tensor::empty({2, batch, parts, n});
  float* shift_part = partial.mutable_data<float>();
  float* scale_part = shift_part + batch * parts * n;
  const float *scale_data = scale.data<float>(), *stat = statistics.data<float>();
  parallel_for(batch * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t sample = task / parts, first = sample * tokens + task % parts * part_rows;
      const int64_t rows = std::min(part_rows, (sample + 1) * tokens - first);
      HWY_DYNAMIC_DISPATCH(norm_rows_backward)
      (element(g, first * n), g.dtype(), element(x, first * n), x.dtype(), scale_data + sample * n,
       stat + 2 * first, rows, n, element(dx, first * n), shift_part + task * n, scale_part + task * n);
    }
  });
  float *dshift_data = dshift.mutable_data<float>(), *dscale_data = dscale.mutable_data<float>();
  for (int64_t sample = 0; sample < batch; ++sample)
    for (int64_t i = 0; i < n; ++i) {
      float shift_sum = 0.0f, scale_sum = 0.0f;
      for (int64_t part = sample * parts; part < (sample + 1) * parts; ++part) {
        shift_sum += shift_part[part * n + i];
        scale_sum += scale_part[part * n + i];
      }
      dshift_data[sample * n + i] = shift_sum;
      dscale_data[sample * n + i] = scale_sum;
    }
}

}  // namespace linnet::ops::cpu
#endif
