// AdamW and what Muon does between its products. Both are bound by memory: AdamW moves 36 bytes a parameter.
#include "cuda/cells.h"
#include "cuda/kernels.h"
#include "cuda/packs.h"
#include "ops/came_cuda.h"

namespace linnet::cuda {
namespace {

using ops::GpuAdamW;
using ops::GpuMuon;

__global__ void clip_norm(const float* squares, float limit, float* norm, float* clip) {
  *norm = sqrtf(*squares);
  *clip = limit > 0 && *norm > limit ? limit / (*norm + 1e-6f) : 1.0f;
}

void clip_factor(View squares, float limit, View norm, View clip) {
  launch(clip_norm, dim3(1), dim3(1), 0, squares.as<float>(), limit, norm.as<float>(), clip.as<float>());
}

struct AdamWState {
  const float *clip, *gradient;  // gradient may be null
  float *value, *mean, *square, *ema;
};

template <int N>
__global__ void adamw_all(GpuAdamW s, AdamWState at, int64_t n) {
  const float clip = *at.clip;
  for (int64_t i = N * thread_number(); i < n; i += N * thread_count()) {
    Pack<float, N> gradient{};
    if (at.gradient != nullptr) gradient = load_pack<N>(at.gradient + i);
    auto value = load_pack<N>(at.value + i), mean = load_pack<N>(at.mean + i);
    auto square = load_pack<N>(at.square + i), ema = load_pack<N>(at.ema + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float g = gradient.at[k] * clip;
      float &m = mean.at[k], &v = square.at[k], &p = value.at[k];
      m = fmaf(g - m, 1.0f - s.beta1, m);
      v = fmaf(g * g, 1.0f - s.beta2, v * s.beta2);
      const float root = sqrtf(v) / s.correction2 + s.epsilon;
      p = p * (1.0f - s.lr * s.weight_decay) - m / root * (s.lr / s.correction1);
      ema.at[k] = fmaf(p, 1.0f - s.ema_decay, ema.at[k] * s.ema_decay);
    }
    store_pack(at.value + i, value);
    store_pack(at.mean + i, mean);
    store_pack(at.square + i, square);
    store_pack(at.ema + i, ema);
  }
}

void adamw(const GpuAdamW& s, View clip, View value, View gradient, View mean, View square, View ema,
           int64_t n) {
  constexpr int width = 4;
  bool whole = true;
  for (const View& view : {value, gradient, mean, square, ema}) whole = whole && has_packs(view, n, width);
  const AdamWState state{clip.as<float>(), gradient.as<float>(), value.as<float>(),
                         mean.as<float>(), square.as<float>(),   ema.as<float>()};
  if (whole)
    launch_over(n / width, adamw_all<width>, s, state, n);
  else
    launch_over(n, adamw_all<1>, s, state, n);
}

__global__ void muon_ahead_all(float momentum, const float* clip, const float* gradient, float* mean,
                               float* ahead, int64_t n) {
  const float scale = *clip;
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const float g = gradient != nullptr ? scale * gradient[i] : 0.0f;
    const float m = fmaf(momentum, mean[i], g);
    mean[i] = m;
    ahead[i] = fmaf(momentum, m, g);
  }
}

void muon_ahead(const GpuMuon& s, View clip, View gradient, View mean, View ahead, int64_t n) {
  launch_over(n, muon_ahead_all, s.momentum, clip.as<float>(), gradient.as<float>(), mean.as<float>(),
              ahead.as<float>(), n);
}

__global__ void muon_move_all(GpuMuon s, const float* update, float* value, float* ema, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const float p = s.kept * value[i] - s.step * update[i];
    value[i] = p;
    ema[i] = fmaf(s.ema_decay, ema[i], (1.0f - s.ema_decay) * p);
  }
}

void muon_move(const GpuMuon& s, View update, View value, View ema, int64_t n) {
  launch_over(n, muon_move_all, s, update.as<float>(), value.as<float>(), ema.as<float>(), n);
}

template <class Y>
__global__ void divide_all(const float* x, const float* squares, float least, Y* y, int64_t n) {
  const float scale = 1.0f / fmaxf(sqrtf(*squares), least);
  for (int64_t i = thread_number(); i < n; i += thread_count()) assign(y[i], x[i] * scale);
}

void divide_by_norm(View x, View squares, float least, View y, int64_t n) {
  with_float(y.dtype, [&](auto* type) {
    using Y = Pointee<decltype(type)>;
    launch_over(n, divide_all<Y>, x.as<float>(), squares.as<float>(), least, y.as<Y>(), n);
  });
}

template <class T>
__global__ void polynomial(const T* gram, float* squared, float a, float b, float c, int64_t rows) {
  for (int64_t i = thread_number(); i < rows * rows; i += thread_count())
    squared[i] = b * to_float(gram[i]) + c * squared[i] + (i % (rows + 1) == 0 ? a : 0.0f);
}

void muon_polynomial(View gram, View squared, float a, float b, float c, int64_t rows) {
  with_float(gram.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch_over(rows * rows, polynomial<T>, gram.as<T>(), squared.as<float>(), a, b, c, rows);
  });
}

}  // namespace

void fill(ops::OptimizerKernels& table) {
  table = {clip_factor, adamw, came, muon_ahead, muon_move, divide_by_norm, muon_polynomial};
}

}  // namespace linnet::cuda
