// What the kernels of softmax attention share: which sequence and head a block of threads works on, and the
// units of scores. There are two sets of kernels: tiles for tensor cores (16-bit types, heads up to 128 wide,
// softmax_tiles_cuda.cuh), and plain ones (f32, and wider heads, softmax_plain_cuda.cu). Both go over tiles of
// scores with a running maximum and sum (Dao 2023, "FlashAttention-2"), and both compute gradients in two
// kernels, one over keys and one over queries, each of which computes the scores anew: so no sum needs atomics.
#pragma once

#include "cuda/runtime.h"
#include "ops/gpu_kernels.h"

namespace linnet::cuda::softmax {

constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

__device__ __forceinline__ float exp_2(float x) {
#ifdef LINNET_CUDA_EMULATED
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
#endif
}

/// The same memory as larger elements, of whose alignment the caller is sure.
template <class To>
__device__ __forceinline__ To* seen_as(void* at) {
  return static_cast<To*>(at);
}
template <class To>
__device__ __forceinline__ const To* seen_as(const void* at) {
  return static_cast<const To*>(at);
}

/// Rows of a tensor's columns.
template <class T>
struct Rows {
  T* at;
  int64_t stride;

  __device__ Rows from(int64_t row, int64_t column) const { return {at + row * stride + column, stride}; }
};

/// What stays the same over types.
struct Sequences {
  const int64_t *query_offsets, *key_offsets;
  int64_t queries, keys;
  int count, heads, head_size;
  float scale;
  const float* bias;
  int bias_width;
};

template <class T>
struct Attention : Sequences {
  Rows<const T> q, k, v;
  bool packed;  ///< whether every row begins at a multiple of 16 bytes, and a head is a multiple of that
};

/// Of a query and head: log₂ of the sum of its exponentials, and Σ g·out.
struct alignas(8) RowSums {
  float log_sum, g_out;
};

template <class T>
struct Gradients {
  Rows<const T> g;
  const RowSums* sums;  ///< (heads, queries)
  Rows<T> dq, dk, dv;
};

/// The part of the work of one block of threads: a block of rows of one head of one sequence.
struct Part {
  int64_t first_query, first_key;  ///< of the sequence
  int queries, keys;               ///< of the sequence
  int head, block;
};

struct Span {
  int64_t first;
  int length;
};
__device__ __forceinline__ Span span_of(const int64_t* offsets, int64_t rows, int count, int sequence) {
  if (offsets == nullptr) return {sequence * (rows / count), static_cast<int>(rows / count)};
  return {offsets[sequence], static_cast<int>(offsets[sequence + 1] - offsets[sequence])};
}

/// Blocks of one sequence and head are neighbours, since they read the same memory.
__device__ __forceinline__ Part part_of(const Sequences& all, int blocks) {
  const unsigned rest = blockIdx.x / static_cast<unsigned>(blocks), heads = static_cast<unsigned>(all.heads);
  const int sequence = static_cast<int>(rest / heads);
  const Span queries = span_of(all.query_offsets, all.queries, all.count, sequence);
  const Span keys = span_of(all.key_offsets, all.keys, all.count, sequence);
  return {queries.first,
          keys.first,
          queries.length,
          keys.length,
          static_cast<int>(rest % heads),
          static_cast<int>(blockIdx.x % static_cast<unsigned>(blocks))};
}

/// The bias of a query and a key (within their sequence) in units of log 2; of rows beyond a sequence's end it
/// is any number of the table.
__device__ __forceinline__ float bias_of(const Sequences& all, int head, int query, int key) {
  const int entry = min(max(all.bias_width / 2 + key - query, 0), all.bias_width - 1);
  return log2_e * __ldg(all.bias + static_cast<int64_t>(head) * all.bias_width + entry);
}

/// One block of threads for each `rows` rows of the longest sequence, of each head and sequence.
inline dim3 grid_of(const ops::GpuAttention& in, int64_t blocks) {
  return dim3(static_cast<unsigned>(blocks * in.heads * in.sequences));
}

inline Sequences sequences_of(const ops::GpuAttention& in) {
  return {in.query_offsets,
          in.key_offsets,
          in.queries,
          in.keys,
          static_cast<int>(in.sequences),
          static_cast<int>(in.heads),
          static_cast<int>(in.head_size),
          in.scale,
          in.bias.as<const float>(),
          static_cast<int>(in.bias_width)};
}

template <class T>
Rows<T> rows_of(const ops::ColumnView& x) {
  return {x.view.as<T>() + x.first, x.stride};
}

template <class T>
Attention<T> attention_of(const ops::GpuAttention& in, bool packed) {
  return {sequences_of(in), rows_of<const T>(in.q), rows_of<const T>(in.k), rows_of<const T>(in.v), packed};
}

/// Whether kernels may take 16 bytes at once.
template <class T>
bool is_packed(const ops::ColumnView& x, int64_t head_size) {
  constexpr int64_t pack = 16 / sizeof(T);
  const auto address = reinterpret_cast<uintptr_t>(x.view.data);
  return address % 16 == 0 && x.stride % pack == 0 && x.first % pack == 0 && head_size % pack == 0;
}

/// The widest head of the kernels for tensor cores.
constexpr int64_t widest_tile = 128;

// For T = bf16 and f16, heads up to widest_tile.
template <class T>
void forward_by_tiles(const ops::GpuAttention& in, View out, View log_sums);
template <class T>
void backward_by_tiles(const ops::GpuAttention& in, const Gradients<T>& gradients, bool packed);

// For any type and head.
template <class T>
void forward_plainly(const ops::GpuAttention& in, View out, View log_sums);
template <class T>
void backward_plainly(const ops::GpuAttention& in, const Gradients<T>& gradients);

}  // namespace linnet::cuda::softmax
