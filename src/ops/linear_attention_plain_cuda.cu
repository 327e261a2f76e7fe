// The products of linear attention by plain multiply-adds in f32: for f32 tensors, and for heads that the
// tensor cores' tiles do not take. Blocks of 256 threads multiply tiles of 64×64, 16 deep.
#include "ops/linear_attention_cuda.h"

namespace linnet::cuda::linear_attention {
namespace {

constexpr int tile = 64, depth = 16, edge = 4, threads = 256;
constexpr int stride = tile + edge;  // keeps 16-byte reads of a column of tiles apart

// sums (4×4 a thread) += left (depth, tile)ᵀ·right (depth, tile)
__device__ __forceinline__ void multiply_tiles(const float* left, const float* right,
                                               float (&sums)[edge][edge]) {
  const int row = threadIdx.x / 16 * edge, column = threadIdx.x % 16 * edge;
#pragma unroll
  for (int k = 0; k < depth; ++k) {
    float a[edge], b[edge];
#pragma unroll
    for (int i = 0; i < edge; ++i) {
      a[i] = left[k * stride + row + i];
      b[i] = right[k * stride + column + i];
    }
#pragma unroll
    for (int i = 0; i < edge; ++i)
#pragma unroll
      for (int j = 0; j < edge; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
  }
}

template <class T>
struct PlainGather {
  const T *a, *b;
  int64_t a_stride, b_stride;
  const float *w, *e;
  float* shares;
  int64_t tokens, heads, head_size, parts, part_tokens;
  bool mapped;
};

template <class T>
__global__ void gather_plain(PlainGather<T> in) {
  __shared__ float left[depth * stride], right[depth * stride], extra[depth];
  const int64_t n = in.head_size, tiles = (n + tile - 1) / tile;
  int64_t task = blockIdx.x;
  const int64_t row = task % tiles * tile, column = task / tiles % tiles * tile;
  task /= tiles * tiles;
  const int64_t part = task % in.parts, state = task / in.parts;
  const T* a = rows_of(in.a, in.a_stride, state, in.heads, in.tokens, n);
  const T* b = rows_of(in.b, in.b_stride, state, in.heads, in.tokens, n);
  const float *w = in.w ? in.w + state * in.tokens : nullptr, *e = in.e ? in.e + state * in.tokens : nullptr;
  const int64_t end = min(in.tokens, (part + 1) * in.part_tokens);

  float sums[edge][edge] = {}, total = 0;
  for (int64_t first = part * in.part_tokens; first < end; first += depth) {
    for (int i = threadIdx.x; i < depth * tile; i += threads) {
      const int k = i / tile, j = i % tile;
      const int64_t t = first + k;
      float x = 0, y = 0;
      if (t < end && row + j < n) {
        x = to_float(a[t * in.a_stride + row + j]);
        x = (in.mapped ? feature(x) : x) * (w ? w[t] : 1.0f);
      }
      if (t < end && column + j < n) y = to_float(b[t * in.b_stride + column + j]);
      left[k * stride + j] = x;
      right[k * stride + j] = y;
    }
    if (threadIdx.x < depth)
      extra[threadIdx.x] = e && first + threadIdx.x < end ? e[first + threadIdx.x] : 1.0f;
    __syncthreads();
    multiply_tiles(left, right, sums);
    if (threadIdx.x < tile)
      for (int k = 0; k < depth; ++k) total = fmaf(left[k * stride + threadIdx.x], extra[k], total);
    __syncthreads();
  }

  float* share = in.shares + (state * in.parts + part) * (n + 1) * n;
  const int64_t i0 = row + threadIdx.x / 16 * edge, j0 = column + threadIdx.x % 16 * edge;
  for (int i = 0; i < edge; ++i)
    for (int j = 0; j < edge; ++j)
      if (i0 + i < n && j0 + j < n) share[(i0 + i) * n + j0 + j] = sums[i][j];
  if (column == 0 && threadIdx.x < tile && row + threadIdx.x < n) share[n * n + row + threadIdx.x] = total;
}

template <class T>
void gather_as(const Shape& shape, const Gather& step) {
  const int64_t tiles = divide_up(shape.head_size, tile), blocks = shape.states() * tiles * tiles;
  const int64_t wanted = parts_of(shape.tokens, blocks), part_tokens = divide_up(shape.tokens, wanted),
                parts = divide_up(shape.tokens, part_tokens);
  const Scratch shares(static_cast<size_t>(shape.states() * parts * (shape.head_size + 1) * shape.head_size) *
                       sizeof(float));
  launch(gather_plain<T>, dim3(static_cast<unsigned>(blocks * parts)), dim3(threads), 0,
         PlainGather<T>{step.a.view.as<T>() + step.a.first, step.b.view.as<T>() + step.b.first, step.a.stride,
                        step.b.stride, step.w, step.e, shares.as<float>(), shape.tokens, shape.heads,
                        shape.head_size, parts, part_tokens, shape.mapped});
  add_shares(shape, shares.as<float>(), parts, static_cast<float*>(step.matrix), step.total);
}

// product (states, tokens, head_size) = f(x)·matrix, or x·matrixᵀ.
template <class T>
struct PlainRows {
  const T* x;
  int64_t x_stride;
  const float* matrix;
  float* product;
  int64_t tokens, heads, head_size;
  bool mapped;
};

template <class T, bool Transposed>
__global__ void multiply_rows(PlainRows<T> in) {
  __shared__ float left[depth * stride], right[depth * stride];
  const int64_t n = in.head_size, tiles = (n + tile - 1) / tile, row_tiles = (in.tokens + tile - 1) / tile;
  int64_t task = blockIdx.x;
  const int64_t column = task % tiles * tile;
  task /= tiles;
  const int64_t token = task % row_tiles * tile, state = task / row_tiles;
  const T* x = rows_of(in.x, in.x_stride, state, in.heads, in.tokens, n);
  const float* matrix = in.matrix + state * n * n;

  float sums[edge][edge] = {};
  for (int64_t first = 0; first < n; first += depth) {
    for (int i = threadIdx.x; i < depth * tile; i += threads) {
      const int k = i % depth, t = i / depth;
      float value = 0;
      if (token + t < in.tokens && first + k < n) {
        value = to_float(x[(token + t) * in.x_stride + first + k]);
        if (in.mapped && !Transposed) value = feature(value);
      }
      left[k * stride + t] = value;
    }
    for (int i = threadIdx.x; i < depth * tile; i += threads) {
      const int k = Transposed ? i % depth : i / tile, j = Transposed ? i / depth : i % tile;
      float value = 0;
      if (first + k < n && column + j < n)
        value = Transposed ? matrix[(column + j) * n + first + k] : matrix[(first + k) * n + column + j];
      right[k * stride + j] = value;
    }
    __syncthreads();
    multiply_tiles(left, right, sums);
    __syncthreads();
  }

  const int64_t t0 = token + threadIdx.x / 16 * edge, j0 = column + threadIdx.x % 16 * edge;
  for (int i = 0; i < edge; ++i)
    for (int j = 0; j < edge; ++j)
      if (t0 + i < in.tokens && j0 + j < n) in.product[(state * in.tokens + t0 + i) * n + j0 + j] = sums[i][j];
}

template <class T, bool Transposed>
void launch_rows(const Shape& shape, const ColumnView& x, const void* matrix, float* product) {
  const int64_t blocks = shape.states() * divide_up(shape.head_size, tile) * divide_up(shape.tokens, tile);
  launch(multiply_rows<T, Transposed>, dim3(static_cast<unsigned>(blocks)), dim3(threads), 0,
         PlainRows<T>{x.view.as<T>() + x.first, x.stride, static_cast<const float*>(matrix), product,
                      shape.tokens, shape.heads, shape.head_size, shape.mapped});
}

// What is left to do for each token of each state, by a warp.
template <class T>
struct Finish {
  const float* product;
  const T* under;  // the row of f: x of an answer
  int64_t under_stride;
  T* y;
  int64_t y_stride;
  const float *total, *inverse;
  float* result;  // 1/z of an answer, −along of a gradient
  int64_t tokens, heads, head_size, count;
  bool mapped, add;
};

template <class T>
__device__ __forceinline__ float mapped_value(const Finish<T>& in, const T& x) {
  return in.mapped ? feature(to_float(x)) : to_float(x);
}

template <class T>
__device__ void finish_answer(const Finish<T>& in, const float* p, const T* x, T* y, int64_t row) {
  const int lane = threadIdx.x % warp_size;
  float inverse = 1;
  if (in.total) {
    const float* total = in.total + row / in.tokens * in.head_size;
    float z = 0;
    for (int64_t i = lane; i < in.head_size; i += warp_size) z = fmaf(mapped_value(in, x[i]), total[i], z);
    inverse = 1.0f / away_from_zero(warp_sum(z), in.mapped);
  }
  for (int64_t i = lane; i < in.head_size; i += warp_size)
    assign(y[i], fmaf(p[i], inverse, in.add ? to_float(y[i]) : 0.0f));
  if (in.result && lane == 0) in.result[row] = inverse;
}

template <class T>
__device__ void finish_gradient(const Finish<T>& in, const float* p, const T* under, T* y, int64_t row) {
  const int lane = threadIdx.x % warp_size;
  const float* total = in.total + row / in.tokens * in.head_size;
  float inverse = 1, along = -1;
  if (in.inverse) {
    float dot = 0;
    for (int64_t i = lane; i < in.head_size; i += warp_size) dot = fmaf(mapped_value(in, under[i]), p[i], dot);
    inverse = in.inverse[row];
    along = inverse * warp_sum(dot);
    if (lane == 0) in.result[row] = -along;
  }
  for (int64_t i = lane; i < in.head_size; i += warp_size) {
    const bool rises = !in.mapped || to_float(under[i]) > 0.0f;
    assign(y[i], rises ? inverse * (p[i] - along * total[i]) : 0.0f);
  }
}

template <class T, bool Answers>
__global__ void finish_rows(Finish<T> in) {
  for (int64_t row = thread_number() / warp_size; row < in.count; row += thread_count() / warp_size) {
    const int64_t state = row / in.tokens, t = row % in.tokens;
    const T* under =
        rows_of(in.under, in.under_stride, state, in.heads, in.tokens, in.head_size) + t * in.under_stride;
    T* y = rows_of(in.y, in.y_stride, state, in.heads, in.tokens, in.head_size) + t * in.y_stride;
    const float* p = in.product + row * in.head_size;
    if (Answers)
      finish_answer(in, p, under, y, row);
    else
      finish_gradient(in, p, under, y, row);
  }
}

size_t product_bytes(const Shape& shape) {
  return static_cast<size_t>(shape.states() * shape.tokens * shape.head_size) * sizeof(float);
}

template <class T>
void answer_as(const Shape& shape, const Answer& step) {
  const Scratch product(product_bytes(shape));
  launch_rows<T, false>(shape, step.x, step.matrix, product.as<float>());
  const int64_t count = shape.states() * shape.tokens;
  launch_over(count * warp_size, finish_rows<T, true>,
              Finish<T>{product.as<float>(), step.x.view.as<T>() + step.x.first, step.x.stride,
                        step.y.view.as<T>() + step.y.first, step.y.stride, step.total, nullptr, step.inverse,
                        shape.tokens, shape.heads, shape.head_size, count, shape.mapped, step.add});
}

template <class T>
void gradient_as(const Shape& shape, const Gradient& step) {
  const Scratch product(product_bytes(shape));
  launch_rows<T, true>(shape, step.x, step.matrix, product.as<float>());
  const int64_t count = shape.states() * shape.tokens;
  launch_over(count * warp_size, finish_rows<T, false>,
              Finish<T>{product.as<float>(), step.under.view.as<T>() + step.under.first, step.under.stride,
                        step.y.view.as<T>() + step.y.first, step.y.stride, step.total, step.inverse,
                        step.against, shape.tokens, shape.heads, shape.head_size, count, shape.mapped, false});
}

void gather(const Shape& shape, const Gather& step) {
  with_float(shape.dtype, [&](auto* type) { gather_as<Pointee<decltype(type)>>(shape, step); });
}
void answer(const Shape& shape, const Answer& step) {
  with_float(shape.dtype, [&](auto* type) { answer_as<Pointee<decltype(type)>>(shape, step); });
}
void gradient(const Shape& shape, const Gradient& step) {
  with_float(shape.dtype, [&](auto* type) { gradient_as<Pointee<decltype(type)>>(shape, step); });
}

}  // namespace

const Products by_plain = {gather, answer, gradient};

}  // namespace linnet::cuda::linear_attention
