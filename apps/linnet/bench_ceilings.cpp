#include "bench_ceilings.h"

#include <dnnl.hpp>

#include <cstring>
#include <limits>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "bench_device.h"
#include "bench_random.h"
#include "core/parallel.h"
#include "ops/matmul.h"
#include "ops/onednn.h"

namespace linnet::app {
namespace {

using dnnl::memory;

// More than any cache holds.
int64_t copy_bytes() { return bench_device().is_gpu() ? ceiling_copy_bytes(gpu().info) : 256 << 20; }

dnnl::matmul::primitive_desc descriptor(const dnnl::engine& engine, const memory::desc& a,
                                        const memory::desc& b, const memory::desc& c) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, a, b, c};
#else
  return {dnnl::matmul::desc(a, b, c), engine};
#endif
}

// Random values: zeros would save power, and with it time.
void fill(dnnl::stream& stream, const memory& into, int64_t rows, int64_t columns, memory::data_type type) {
  const bool integers = type == memory::data_type::u8 || type == memory::data_type::s8;
  const Tensor values = random_on_cpu({rows, columns}, integers ? 100.0f : 0.5f);
  memory plain({{rows, columns}, memory::data_type::f32, memory::format_tag::ab}, into.get_engine(),
               const_cast<void*>(values.raw()));
  memory target = into;
  dnnl::reorder(plain, target).execute(stream, plain, target);
  stream.wait();
}

// Where the processor can, around the caches: otherwise every line is read before it is written, and a third of
// the traffic would not be counted. Both are aligned to lines, of which count is a multiple.
void copy_streaming(float* target, const float* source, int64_t count) {
#ifdef __SSE2__
  for (int64_t i = 0; i < count; i += 4) _mm_stream_ps(target + i, _mm_load_ps(source + i));
  _mm_sfence();
#else
  std::memcpy(target, source, static_cast<size_t>(count) * sizeof(float));
#endif
}

struct Types {
  memory::data_type a, b, c;
};

Types types_of(DType dtype) {
  using enum memory::data_type;
  switch (dtype) {
    case DType::i8: return {u8, s8, s32};
    case DType::bf16: return {bf16, bf16, bf16};
    default: return {f32, f32, f32};
  }
}

}  // namespace

struct MatmulCeiling::State {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::matmul primitive;
  memory a, b, c;
  Tensor left, right, result;  // of a GPU

  void prepare(int64_t rows, int64_t in, int64_t out, const Types& types) {
    const auto any = memory::format_tag::any;
    const auto chosen =
        descriptor(engine, {{rows, in}, types.a, any}, {{in, out}, types.b, any}, {{rows, out}, types.c, any});
    primitive = dnnl::matmul(chosen);
    a = memory(chosen.src_desc(), engine);
    b = memory(chosen.weights_desc(), engine);
    c = memory(chosen.dst_desc(), engine);
    fill(stream, a, rows, in, types.a);
    fill(stream, b, in, out, types.b);
  }
};

MatmulCeiling::MatmulCeiling(int64_t rows, int64_t in, int64_t out, DType dtype)
    : rows_(rows), in_(in), out_(out), dtype_(dtype), state_(std::make_shared<State>()) {
  State& s = *state_;
  if (bench_device().is_gpu()) {
    rows_ = in_ = out_ = ceiling_side(gpu().info);
    dtype_ = dtype == DType::i8 ? ops::fastest_product_dtype(bench_device()) : dtype;
    s.left = random_tensor({rows_, in_}, 0.5f, dtype_);
    s.right = random_tensor({out_, in_}, 0.5f, dtype_);
    s.result = Tensor::empty({rows_, out_}, dtype_, bench_device());
    return;
  }
  if (rows > std::numeric_limits<int32_t>::max())  // which would end the program
    throw UsageError(fmt::format(
        "a product of {} rows is more than oneDNN can count: choose fewer or smaller pictures", rows));
  ops::onednn::translated([&] { s.prepare(rows, in, out, types_of(dtype)); });
}

Work MatmulCeiling::work(double least) const {
  if (bench_device().is_gpu())
    return {.run =
                [s = state_] {
                  ops::matmul(ops::as_matrix(s->left), ops::as_matrix(s->right).transposed(), s->result);
                },
            .least = least};
  const auto run = [s = state_] {
    ops::onednn::translated([&] {
      s->primitive.execute(s->stream, {{DNNL_ARG_SRC, s->a}, {DNNL_ARG_WEIGHTS, s->b}, {DNNL_ARG_DST, s->c}});
      s->stream.wait();
    });
  };
  return {.run = run, .least = least};
}

std::string MatmulCeiling::name() const {
  const Device& device = bench_device();
  return fmt::format("{} {}×{}×{} {}", device.is_gpu() ? "cuBLASLt" : "oneDNN", rows_, in_, out_,
                     ops::name_of_products(dtype_, device));
}

struct ConvCeiling::State {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::convolution_forward primitive;
  memory x, weight, y;
};

ConvCeiling::ConvCeiling(int64_t channels, int64_t side, DType dtype)
    : channels_(channels), side_(side), dtype_(dtype), state_(std::make_shared<State>()) {
  State& s = *state_;
  const auto type = types_of(dtype).a;
  const memory::desc picture({1, channels, side, side}, type, memory::format_tag::nhwc);
  const memory::desc any({channels, channels, 3, 3}, type, memory::format_tag::any);
  const auto kind = dnnl::prop_kind::forward_inference;
  const auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::convolution_forward::primitive_desc chosen(s.engine, kind, algorithm, picture, any, picture,
                                                         {1, 1}, {1, 1}, {1, 1});
#else
  const dnnl::convolution_forward::primitive_desc chosen(
      {kind, algorithm, picture, any, picture, {1, 1}, {1, 1}, {1, 1}}, s.engine);
#endif
  s.primitive = dnnl::convolution_forward(chosen);
  s.x = memory(picture, s.engine);
  s.y = memory(picture, s.engine);
  s.weight = memory(chosen.weights_desc(), s.engine);
  const Tensor x = random_on_cpu({side, side, channels}, 0.5f),
               w = random_on_cpu({channels, channels, 3, 3}, 0.02f);
  memory plain_x({{1, channels, side, side}, memory::data_type::f32, memory::format_tag::nhwc}, s.engine,
                 const_cast<void*>(x.raw()));
  memory plain_w({{channels, channels, 3, 3}, memory::data_type::f32, memory::format_tag::oihw}, s.engine,
                 const_cast<void*>(w.raw()));
  dnnl::reorder(plain_x, s.x).execute(s.stream, plain_x, s.x);
  dnnl::reorder(plain_w, s.weight).execute(s.stream, plain_w, s.weight);
  s.stream.wait();
}

Work ConvCeiling::work(double least) const {
  const auto run = [s = state_] {
    s->primitive.execute(s->stream,
                         {{DNNL_ARG_SRC, s->x}, {DNNL_ARG_WEIGHTS, s->weight}, {DNNL_ARG_DST, s->y}});
    s->stream.wait();
  };
  return {.run = run, .least = least};
}

std::string ConvCeiling::name() const {
  return fmt::format("3×3, {} channels, {}×{} {}", channels_, side_, side_, name_of(dtype_));
}

CopyCeiling::CopyCeiling()
    : from_(random_tensor({copy_bytes() / static_cast<int64_t>(sizeof(float))}, 1.0f)),
      to_(Tensor::zeros(from_.shape(), DType::f32, bench_device())) {}

Work CopyCeiling::work(double least) const {
  if (bench_device().is_gpu())
    return {.run = [from = from_, to = to_] { gpu().copy(to.view().data, from.view().data, from.bytes()); },
            .least = least};
  const auto run = [from = from_, to = to_]() mutable {
    constexpr int64_t line = 16;
    const auto* source = from.data<float>();
    auto* target = to.mutable_data<float>();
    parallel_for(from.numel() / line, 1 << 14, [&](int64_t begin, int64_t end) {
      copy_streaming(target + begin * line, source + begin * line, (end - begin) * line);
    });
  };
  return {.run = run, .least = least};
}

}  // namespace linnet::app
