// AdamW, clipping, and what Muon does between its products, of all parameters together. All are bound by
// memory: AdamW moves 36 bytes a parameter.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "cuda/cells.h"
#include "cuda/kernels.h"
#include "cuda/packs.h"
#include "ops/came_cuda.h"

namespace linnet::cuda {
namespace {

using ops::GpuAdamW;
using ops::GpuMuon;
using ops::GpuParameter;

// Part of one parameter, for one block: parameters of all sizes are cut into parts of about the same size, and
// one kernel does them all.
struct Part {
  float* value;
  const float* gradient;  // may be null
  float *mean, *square, *ema;
  int64_t n, packed;  // numbers, and how many of them can be read four at once
  int64_t at;         // of its first number, counted through all parameters
};

class Parts {
 public:
  Parts(const GpuParameter* parameters, int64_t count) : parts_(cut(parameters, count)), table_(upload_all()) {}

  const Part* table() const { return table_.get(); }
  unsigned count() const { return static_cast<unsigned>(parts_.size()); }

 private:
  static std::vector<Part> cut(const GpuParameter* parameters, int64_t count) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; ++i) total += parameters[i].n;
    // Many blocks for each multiprocessor, so that the last ones are soon done; but parts of at least a size
    // for which their table is worth its upload.
    const int64_t wanted = divide_up(total, int64_t{32} * multiprocessors());
    const int64_t size = divide_up(std::clamp<int64_t>(wanted, 1 << 12, 1 << 16), 4) * 4;
    std::vector<Part> parts;
    int64_t before = 0;
    for (int64_t i = 0; i < count; before += parameters[i++].n) {
      const GpuParameter& p = parameters[i];
      bool whole = true;
      for (const View& view : {p.value, p.gradient, p.mean, p.square, p.ema})
        whole = whole && is_aligned(view.data, 16);
      for (int64_t from = 0; from < p.n; from += size) {
        const int64_t n = std::min(size, p.n - from);
        const auto at = [&](View view) { return view.data ? view.as<float>() + from : nullptr; };
        parts.push_back({at(p.value), at(p.gradient), at(p.mean), at(p.square), at(p.ema), n,
                         whole ? n / 4 * 4 : 0, before + from});
      }
    }
    return parts;
  }
  Uploaded<Part> upload_all() const { return Uploaded<Part>(parts_.data(), parts_.size()); }

  std::vector<Part> parts_;
  Uploaded<Part> table_;
};

// Calls body(first, Size<N>{}) for N = 4 numbers at once, where they can be, and N = 1 for the rest.
template <int N>
using Size = std::integral_constant<int, N>;

template <class Body>
__device__ __forceinline__ void for_part(const Part& part, const Body& body) {
  for (int64_t i = int64_t{4} * threadIdx.x; i < part.packed; i += int64_t{4} * blockDim.x) body(i, Size<4>{});
  for (int64_t i = part.packed + threadIdx.x; i < part.n; i += blockDim.x) body(i, Size<1>{});
}

constexpr unsigned part_threads = 256;

template <class... Params, class... Args>
void launch_parts(const Parts& parts, void (*kernel)(Params...), Args... args) {
  if (parts.count() > 0) launch(kernel, dim3(parts.count()), dim3(part_threads), 0, parts.table(), args...);
}

__global__ void square_sums(const Part* parts, float* sums) {
  const Part part = parts[blockIdx.x];
  float sum = 0;
  for_part(part, [&]<int N>(int64_t i, Size<N>) {
    const auto x = load_pack<N>(part.value + i);
#pragma unroll
    for (int k = 0; k < N; ++k) sum = fmaf(x.at[k], x.at[k], sum);
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void clip_norm(const float* sums, unsigned count, float limit, float* norm, float* clip) {
  float sum = 0;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
  sum = block_sum(sum);
  if (threadIdx.x > 0) return;
  *norm = sqrtf(sum);
  *clip = limit > 0 && *norm > limit ? limit / (*norm + 1e-6f) : 1.0f;
}

void clip_factor(const View* x, const int64_t* n, int64_t count, float limit, View norm, View clip) {
  std::vector<GpuParameter> arrays;
  for (int64_t i = 0; i < count; ++i) arrays.push_back({x[i], {}, {}, {}, {}, n[i]});
  const Parts parts(arrays.data(), count);
  const Scratch sums(std::max(1u, parts.count()) * sizeof(float));
  launch_parts(parts, square_sums, sums.as<float>());
  launch(clip_norm, dim3(1), dim3(part_threads), 0, sums.as<const float>(), parts.count(), limit,
         norm.as<float>(), clip.as<float>());
}

__global__ void adamw_parts(const Part* parts, GpuAdamW s, const float* clip_) {
  const Part part = parts[blockIdx.x];
  const float clip = *clip_;
  for_part(part, [&]<int N>(int64_t i, Size<N>) {
    Pack<float, N> gradient{};
    if (part.gradient != nullptr) gradient = load_pack<N>(part.gradient + i);
    auto value = load_pack<N>(part.value + i), mean = load_pack<N>(part.mean + i);
    auto square = load_pack<N>(part.square + i), ema = load_pack<N>(part.ema + i);
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
    store_pack(part.value + i, value);
    store_pack(part.mean + i, mean);
    store_pack(part.square + i, square);
    store_pack(part.ema + i, ema);
  });
}

void adamw(const GpuAdamW& s, View clip, const GpuParameter* parameters, int64_t count) {
  launch_parts(Parts(parameters, count), adamw_parts, s, clip.as<const float>());
}

__global__ void muon_ahead_parts(const Part* parts, float momentum, const float* clip, float* ahead) {
  const Part part = parts[blockIdx.x];
  const float scale = *clip;
  for (int64_t i = threadIdx.x; i < part.n; i += blockDim.x) {
    const float g = part.gradient != nullptr ? scale * part.gradient[i] : 0.0f;
    const float m = fmaf(momentum, part.mean[i], g);
    part.mean[i] = m;
    ahead[part.at + i] = fmaf(momentum, m, g);
  }
}

void muon_ahead(const GpuMuon& s, View clip, const GpuParameter* parameters, int64_t count, View ahead) {
  launch_parts(Parts(parameters, count), muon_ahead_parts, s.momentum, clip.as<const float>(),
               ahead.as<float>());
}

template <class T>
__global__ void muon_move_parts(const Part* parts, GpuMuon s, const T* update) {
  const Part part = parts[blockIdx.x];
  for (int64_t i = threadIdx.x; i < part.n; i += blockDim.x) {
    const float p = s.kept * part.value[i] - s.step * to_float(update[part.at + i]);
    part.value[i] = p;
    part.ema[i] = fmaf(s.ema_decay, part.ema[i], (1.0f - s.ema_decay) * p);
  }
}

void muon_move(const GpuMuon& s, View update, const GpuParameter* parameters, int64_t count) {
  const Parts parts(parameters, count);
  with_float(update.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch_parts(parts, muon_move_parts<T>, s, update.as<const T>());
  });
}

// Of a stack of matrices (count, n), each in `pieces` of n/pieces numbers or a few more.
__global__ void matrix_squares(const float* x, float* sums, int64_t n, int64_t pieces) {
  const int64_t matrix = blockIdx.x / pieces, piece = blockIdx.x % pieces;
  const int64_t first = n * piece / pieces, last = n * (piece + 1) / pieces;
  float sum = 0;
  for (int64_t i = first + threadIdx.x; i < last; i += blockDim.x)
    sum = fmaf(x[matrix * n + i], x[matrix * n + i], sum);
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <class Y>
__global__ void divide_matrices(const float* x, const float* sums, float least, Y* y, int64_t n,
                                int64_t pieces) {
  const int64_t matrix = blockIdx.x / pieces, piece = blockIdx.x % pieces;
  const int64_t first = n * piece / pieces, last = n * (piece + 1) / pieces;
  float squares = 0;
  for (int64_t k = 0; k < pieces; ++k) squares += sums[matrix * pieces + k];
  const float scale = 1.0f / fmaxf(sqrtf(squares), least);
  for (int64_t i = first + threadIdx.x; i < last; i += blockDim.x)
    assign(y[matrix * n + i], x[matrix * n + i] * scale);
}

void divide_by_norms(View x, float least, View y, int64_t count, int64_t n) {
  constexpr int64_t most_pieces = 64, least_numbers = 1 << 12;
  const int64_t pieces = std::clamp<int64_t>(n / least_numbers, 1, most_pieces);
  const dim3 blocks(static_cast<unsigned>(count * pieces)), threads(part_threads);
  const Scratch sums(static_cast<size_t>(count * pieces) * sizeof(float));
  launch(matrix_squares, blocks, threads, 0, x.as<const float>(), sums.as<float>(), n, pieces);
  with_float(y.dtype, [&](auto* type) {
    using Y = Pointee<decltype(type)>;
    launch(divide_matrices<Y>, blocks, threads, 0, x.as<const float>(), sums.as<const float>(), least,
           y.as<Y>(), n, pieces);
  });
}

template <class T>
__global__ void polynomial(const T* gram, const float* squared, float a, float b, float c, T* y, int64_t rows,
                           int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const bool diagonal = i % (rows * rows) % (rows + 1) == 0;
    assign(y[i], b * to_float(gram[i]) + c * squared[i] + (diagonal ? a : 0.0f));
  }
}

void muon_polynomial(View gram, View squared, float a, float b, float c, View y, int64_t count, int64_t rows) {
  with_float(gram.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch_over(count * rows * rows, polynomial<T>, gram.as<const T>(), squared.as<const float>(), a, b, c,
                y.as<T>(), rows, count * rows * rows);
  });
}

}  // namespace

void fill(ops::OptimizerKernels& table) {
  table = {clip_factor, adamw, came, muon_ahead, muon_move, divide_by_norms, muon_polynomial};
}

}  // namespace linnet::cuda
