// x + gate·y, and back. A thread owns columns of its block's rows, so a gate is read once for all of them.
// Moves 10 bytes an element forward and 8 back (of y in 16 bits, g in f32), each once.
#include "cuda/cells.h"
#include "cuda/kernels.h"
#include "cuda/packs.h"
#include "ops/norm_cuda.h"

namespace linnet::cuda {
namespace {

constexpr int most_threads = 512;

// Calls each(first element, how many rows) for up to rows_together rows at a time of this block, at `column`.
template <class Each>
__device__ __forceinline__ void for_rows(const RowParts& rows, int64_t column, const Each& each) {
  const int64_t sample = blockIdx.x / rows.parts, begin = sample * rows.tokens;
  const int64_t first = begin + blockIdx.x % rows.parts * rows.part;
  const int64_t end = min(first + rows.part, begin + rows.tokens);
  for (int64_t row = first; row < end; row += rows_together)
    each(row * rows.d + column, static_cast<int>(min(end - row, int64_t{rows_together})));
}

template <int N, class Y>
__global__ void __launch_bounds__(most_threads)
    add_gated(const float* __restrict__ x, const float* __restrict__ gate, const Y* __restrict__ y,
              float* __restrict__ out, RowParts rows) {
  using Floats = Pack<float, N>;
  const int64_t sample = blockIdx.x / rows.parts;
  for (int64_t column = int64_t{N} * threadIdx.x; column < rows.d; column += int64_t{N} * blockDim.x) {
    const auto gates = load_pack<N>(gate + sample * rows.d + column);
    for_rows(rows, column, [&](int64_t at, int count) {
      Floats sums[rows_together];
      Pack<Y, N> branch[rows_together];
#pragma unroll
      for (int r = 0; r < rows_together; ++r)
        if (r < count) {
          sums[r] = load_pack<N>(x + at + r * rows.d);
          branch[r] = load_pack<N>(y + at + r * rows.d);
        }
#pragma unroll
      for (int r = 0; r < rows_together; ++r)
        if (r < count) {
#pragma unroll
          for (int i = 0; i < N; ++i)
            sums[r].at[i] = fmaf(gates.at[i], to_float(branch[r].at[i]), sums[r].at[i]);
          store_pack(out + at + r * rows.d, sums[r]);
        }
    });
  }
}

template <int N, class G, class Y>
__global__ void __launch_bounds__(most_threads)
    gated_backward(const G* __restrict__ g, const float* __restrict__ gate, const Y* __restrict__ y,
                   Y* __restrict__ dy, float* __restrict__ gate_sums, RowParts rows) {
  using Floats = Pack<float, N>;
  const int64_t sample = blockIdx.x / rows.parts;
  for (int64_t column = int64_t{N} * threadIdx.x; column < rows.d; column += int64_t{N} * blockDim.x) {
    const auto gates = load_pack<N>(gate + sample * rows.d + column);
    Floats sum{};
    for_rows(rows, column, [&](int64_t at, int count) {
      Pack<G, N> gradient[rows_together];
      Pack<Y, N> branch[rows_together];
#pragma unroll
      for (int r = 0; r < rows_together; ++r)
        if (r < count) {
          gradient[r] = load_pack<N>(g + at + r * rows.d);
          branch[r] = load_pack<N>(y + at + r * rows.d);
        }
#pragma unroll
      for (int r = 0; r < rows_together; ++r)
        if (r < count) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            const float value = to_float(gradient[r].at[i]);
            sum.at[i] = fmaf(value, to_float(branch[r].at[i]), sum.at[i]);
            assign(branch[r].at[i], value * gates.at[i]);
          }
          store_pack(dy + at + r * rows.d, branch[r]);
        }
    });
    store_pack(gate_sums + blockIdx.x * rows.d + column, sum);
  }
}

template <class Y>
void forward_typed(View x, View gate, View y, View out, const RowParts& rows, bool whole) {
  const auto go = [&](auto kernel, int width) {
    launch(kernel, dim3(rows.blocks()), dim3(threads_for(rows.d / width, most_threads)), 0, x.as<float>(),
           gate.as<float>(), y.as<Y>(), out.as<float>(), rows);
  };
  whole ? go(add_gated<pack_width, Y>, pack_width) : go(add_gated<1, Y>, 1);
}

template <class G, class Y>
void backward_typed(View g, View gate, View y, View dy, float* gate_sums, const RowParts& rows, bool whole) {
  const auto go = [&](auto kernel, int width) {
    launch(kernel, dim3(rows.blocks()), dim3(threads_for(rows.d / width, most_threads)), 0, g.as<G>(),
           gate.as<float>(), y.as<Y>(), dy.as<Y>(), gate_sums, rows);
  };
  whole ? go(gated_backward<pack_width, G, Y>, pack_width) : go(gated_backward<1, G, Y>, 1);
}

}  // namespace

void gated_residual(View x, View gate, View y, View out, int64_t batch, int64_t tokens, int64_t d) {
  const RowParts rows(batch, tokens, d);
  bool whole = true;
  for (const View& view : {x, gate, y, out}) whole = whole && has_packs(view, d, pack_width);
  with_float(y.dtype,
             [&](auto* branch) { forward_typed<Pointee<decltype(branch)>>(x, gate, y, out, rows, whole); });
}

void gated_residual_backward(View g, View gate, View y, View dy, View dgate, int64_t batch, int64_t tokens,
                             int64_t d) {
  const RowParts rows(batch, tokens, d);
  const PartialSums gate_sums(rows, dgate);
  bool whole = true;
  for (const View& view : {g, gate, y, dy, dgate}) whole = whole && has_packs(view, d, pack_width);
  with_float(g.dtype, [&](auto* gradient) {
    with_float(y.dtype, [&](auto* branch) {
      backward_typed<Pointee<decltype(gradient)>, Pointee<decltype(branch)>>(g, gate, y, dy, gate_sums.at(),
                                                                             rows, whole);
    });
  });
  gate_sums.add_up();
}

}  // namespace linnet::cuda
