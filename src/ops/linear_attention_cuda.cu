// Linear attention forward and backward, of the products of linear_attention_cuda.h.
#include "ops/depthwise_conv_cuda.h"
#include "ops/linear_attention_pairs_cuda.h"
#include "ops/linear_attention_tiles_cuda.h"

namespace linnet::cuda {

namespace linear_attention {

int64_t parts_of(int64_t tokens, int64_t blocks, int64_t together) {
  constexpr int64_t least = 32, overhead = 32, most = 256;  // tokens, and parts
  const int64_t room = together * multiprocessors();
  int64_t best = 1, best_cost = divide_up(blocks, room) * tokens;
  for (int64_t parts = 2; parts <= most && divide_up(tokens, parts) >= least; ++parts) {
    const int64_t cost = divide_up(blocks * parts, room) * (divide_up(tokens, parts) + overhead);
    if (cost < best_cost) {
      best = parts;
      best_cost = cost;
    }
  }
  return best;
}

namespace {

// What a block that multiplies tiles may have of shared memory: nothing, where cards cannot multiply them.
size_t shared_limit() {
#ifdef LINNET_CUDA_EMULATED
  const int bytes = 99 * 1024;  // what the smallest of them have
#else
  int device = 0, bytes = 0;
  must(cudaGetDevice(&device), "asking for the device");
  must(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
       "asking for its shared memory");
#endif
  return architecture_of_kernels() < 80 ? 0 : static_cast<size_t>(bytes);
}

}  // namespace

bool tiles_fit(DType dtype, int64_t head_size) {
  static const size_t limit = shared_limit();
  return dtype != DType::f32 && head_size % 8 == 0 && gather_bytes(head_size) <= limit &&
         rows_bytes(head_size) <= limit;
}

const Products by_tiles = {[](const Shape& shape, const Gather& step) {
                             if (!gather_by_groups(shape, step)) gather_by_tiles(shape, step);
                           },
                           [](const Shape& shape, const Answer& step) {
                             if (!answer_by_groups(shape, step)) answer_by_tiles(shape, step);
                           },
                           [](const Shape& shape, const Gradient& step) {
                             if (!gradient_by_groups(shape, step)) gradient_by_tiles(shape, step);
                           }};

namespace {

// N: neighbours at once, a divisor of head_size.
template <int N, class M>
__global__ void add_all_shares(const float* shares, int64_t parts, int64_t head_size, float scale, M* matrix,
                               float* total, int64_t n) {
  const int64_t area = head_size * head_size, size = area + head_size;
  for (int64_t i = thread_number(); i < n; i += thread_count()) {
    const int64_t state = i / (size / N), at = i % (size / N) * N;
    const float* share = shares + state * parts * size + at;
    Pack<float, N> sum{};
#pragma unroll 8
    for (int64_t part = 0; part < parts; ++part) {
      const auto pack = load_pack<N>(share + part * size);
#pragma unroll
      for (int j = 0; j < N; ++j) sum.at[j] += pack.at[j];
    }
    Pack<M, N> rounded;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      sum.at[j] *= scale;
      assign(rounded.at[j], sum.at[j]);
    }
    if (at < area)
      store_pack(matrix + state * area + at, rounded);
    else
      store_pack(total + state * head_size + at - area, sum);
  }
}

}  // namespace

template <class M>
void add_shares(const Shape& shape, const float* shares, int64_t parts, M* matrix, float* total) {
  const int64_t n = shape.states() * (shape.head_size + 1) * shape.head_size;
  const bool packed = shape.head_size % 4 == 0;
  launch_over(packed ? n / 4 : n, packed ? add_all_shares<4, M> : add_all_shares<1, M>, shares, parts,
              shape.head_size, 1.0f / static_cast<float>(shape.tokens), matrix, total, packed ? n / 4 : n);
}
template void add_shares(const Shape&, const float*, int64_t, float*, float*);
template void add_shares(const Shape&, const float*, int64_t, bf16*, float*);
template void add_shares(const Shape&, const float*, int64_t, f16*, float*);

}  // namespace linear_attention

namespace {

using linear_attention::Shape;
using ops::ColumnView;
using ops::GpuLinearAttention;

Shape shape_of(const GpuLinearAttention& in) {
  return {in.batch, in.tokens, in.heads, in.head_size, in.map == ops::GpuFeatureMap::relu, in.q.dtype};
}

const linear_attention::Products& products_for(const Shape& shape) {
  return linear_attention::tiles_fit(shape.dtype, shape.head_size) ? linear_attention::by_tiles
                                                                   : linear_attention::by_plain;
}

// Where the parts of what is kept of a forward pass lie: the matrices, in the type that multiplies them, their
// totals, and 1/z, which is all that products of pairs keep. A gradient of it has no third part.
struct StateLayout {
  explicit StateLayout(const Shape& shape) {
    if (!linear_attention::pairs_fit(shape)) {
      const bool tiles = linear_attention::tiles_fit(shape.dtype, shape.head_size);
      const auto count = static_cast<size_t>(shape.states()), size = static_cast<size_t>(shape.head_size);
      const size_t matrices = count * size * size * (tiles ? size_of(shape.dtype) : sizeof(float));
      totals = (matrices + 15) / 16 * 16;
      inverses = totals + count * size * sizeof(float);
    }
    end = inverses + static_cast<size_t>(shape.states() * shape.tokens) * sizeof(float);
  }
  size_t totals = 0, inverses = 0, end;
};

struct State {
  State(const StateLayout& layout, void* memory)
      : matrix(memory), total(at(memory, layout.totals)), inverse(at(memory, layout.inverses)) {}
  static float* at(void* memory, size_t offset) {
    return static_cast<float*>(static_cast<void*>(static_cast<char*>(memory) + offset));
  }
  void* matrix;
  float *total, *inverse;
};

// Columns of q or of its like; keys and values of kv or of its like.
struct Columns {
  explicit Columns(const GpuLinearAttention& in) : width(in.heads * in.head_size) {}
  ColumnView queries(View q) const { return {q, width, 0}; }
  ColumnView keys(View kv) const { return {kv, 2 * width, 0}; }
  ColumnView values(View kv) const { return {kv, 2 * width, width}; }
  int64_t width;
};

DepthwiseConv conv_of(const GpuLinearAttention& in) {
  return {in.batch, in.rows, in.columns, in.heads * in.head_size, in.head_size, in.kernel, in.q.dtype};
}

size_t state_bytes(const GpuLinearAttention& in) { return StateLayout(shape_of(in)).end; }

using linear_attention::PairsOf;

void answer_by_pairs(const Shape& shape, const GpuLinearAttention& in, const State& state, View out) {
  const Columns columns(in);
  linear_attention::multiply_pairs(shape, PairsOf::answers,
                                   {.x = columns.queries(in.q),
                                    .a = columns.keys(in.kv),
                                    .b = columns.values(in.kv),
                                    .result = state.inverse,
                                    .y = columns.queries(out),
                                    .add = in.weight.data != nullptr});
}

// Of queries and keys; those of values are added to what the convolution's are.
void backward_by_pairs(const Shape& shape, const GpuLinearAttention& in, View g, const State& state, View dq,
                       View dkv) {
  const Columns columns(in);
  const Scratch against(static_cast<size_t>(shape.states() * shape.tokens) * sizeof(float));
  linear_attention::multiply_pairs(shape, PairsOf::queries,
                                   {.x = columns.queries(g),
                                    .a = columns.values(in.kv),
                                    .b = columns.keys(in.kv),
                                    .under = columns.queries(in.q),
                                    .inverse = state.inverse,
                                    .result = against.as<float>(),
                                    .y = columns.queries(dq)});
  linear_attention::multiply_pairs(shape, PairsOf::keys,
                                   {.x = columns.values(in.kv),
                                    .a = columns.queries(g),
                                    .b = columns.queries(in.q),
                                    .w = state.inverse,
                                    .e = against.as<float>(),
                                    .under = columns.keys(in.kv),
                                    .y = columns.keys(dkv)});
  linear_attention::multiply_pairs(shape, PairsOf::values,
                                   {.x = columns.keys(in.kv),
                                    .a = columns.queries(in.q),
                                    .b = columns.queries(g),
                                    .w = state.inverse,
                                    .y = columns.values(dkv),
                                    .add = in.weight.data != nullptr});
}

void forward(const GpuLinearAttention& in, View out, void* memory) {
  const Shape shape = shape_of(in);
  const Columns columns(in);
  const State state(StateLayout(shape), memory);
  const auto& products = products_for(shape);
  const bool convolved = in.weight.data != nullptr;
  if (linear_attention::pairs_fit(shape)) {
    if (convolved) depthwise_conv(conv_of(in), columns.values(in.kv), in.weight, in.bias, columns.queries(out));
    return answer_by_pairs(shape, in, state, out);
  }
  products.gather(shape,
                  {columns.keys(in.kv), columns.values(in.kv), nullptr, nullptr, state.matrix, state.total});
  if (convolved) depthwise_conv(conv_of(in), columns.values(in.kv), in.weight, in.bias, columns.queries(out));
  products.answer(shape, {columns.queries(in.q), state.matrix, state.total, state.inverse, columns.queries(out),
                          convolved});
}

// With S and z the state, p = g·Sᵀ and o = q̂·S/(q̂·z), whose product with g is along = p·q̂/(q̂·z):
//   dq̂ = (p − along·z)/(q̂·z);  dS = mean of q̂ᵀg/(q̂·z), dz = −mean of q̂·along/(q̂·z);
//   dk̂ = v·dSᵀ + dz;  dv = k̂·dS
void backward(const GpuLinearAttention& in, View g, const void* memory, View dq, View dkv, View dweight,
              View dbias) {
  const Shape shape = shape_of(in);
  const Columns columns(in);
  const StateLayout layout(shape);
  const State state(layout, const_cast<void*>(memory));
  const bool convolved = in.weight.data != nullptr;
  if (linear_attention::pairs_fit(shape)) {
    if (convolved)
      depthwise_conv_backward(conv_of(in), columns.values(in.kv), columns.queries(g), in.weight,
                              columns.values(dkv), dweight, dbias);
    return backward_by_pairs(shape, in, g, state, dq, dkv);
  }
  const Scratch gradients(layout.inverses), against(layout.end - layout.inverses);
  const State dstate(layout, gradients.as<void>());
  const auto& products = products_for(shape);
  products.gradient(shape, {columns.queries(g), columns.queries(in.q), state.matrix, state.total, state.inverse,
                            against.as<float>(), columns.queries(dq)});
  products.gather(shape, {columns.queries(in.q), columns.queries(g), state.inverse, against.as<float>(),
                          dstate.matrix, dstate.total});
  products.gradient(shape, {columns.values(in.kv), columns.keys(in.kv), dstate.matrix, dstate.total, nullptr,
                            nullptr, columns.keys(dkv)});
  if (convolved)
    depthwise_conv_backward(conv_of(in), columns.values(in.kv), columns.queries(g), in.weight,
                            columns.values(dkv), dweight, dbias);
  products.answer(shape,
                  {columns.keys(in.kv), dstate.matrix, nullptr, nullptr, columns.values(dkv), convolved});
}

}  // namespace

void fill(ops::LinearAttentionKernels& table) { table = {state_bytes, forward, backward}; }

}  // namespace linnet::cuda
