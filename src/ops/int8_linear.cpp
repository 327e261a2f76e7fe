#include "ops/int8_linear.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>

#include "core/parallel.h"
#include "ops/cast.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/int8_linear_cpu.h"
#include "ops/onednn.h"

namespace linnet::ops {
namespace {

using onednn::memory;

// Tokens are worked on in blocks whose integer sums (4 bytes each) stay in the last-level cache.
constexpr int64_t sums_bytes = 4 << 20;

int64_t block_rows(int64_t columns) {
  return std::max<int64_t>(64, sums_bytes / (4 * std::max<int64_t>(1, columns)) / 64 * 64);
}

memory::desc dense(int64_t rows, int64_t columns, memory::data_type type) {
  return {{rows, columns}, type, memory::format_tag::ab};
}

void check_matrix(const Tensor& weight) {
  check(weight.defined() && weight.shape().rank() == 2, "an 8-bit weight has two dimensions, not shape {}",
        weight.defined() ? to_string(weight.shape()) : "()");
}

void check_pair(const Int8Matrix& weight) {
  check_matrix(weight.values);
  check(weight.values.dtype() == DType::i8, "an 8-bit weight is of type i8, not {}",
        name_of(weight.values.dtype()));
  check(weight.scale.defined() && weight.scale.dtype() == DType::f32 &&
            weight.scale.numel() == weight.values.size(0),
        "an 8-bit weight of {} rows has as many scales, of type f32", weight.values.size(0));
}

constexpr const char* not_finite = "a weight that is not finite has no 8-bit form";

Int8Matrix quantize_on_gpu(const Tensor& weight) {
  const Tensor from = weight.dtype() == DType::f64 ? weight.to(DType::f32) : weight;
  const int64_t rows = from.size(0);
  Int8Matrix result{Tensor::empty(from.shape(), DType::i8, from.device()),
                    Tensor::empty({rows, 1}, DType::f32, from.device())};
  gpu_kernels().product.quantize_rows(from.view(), result.values.view(), result.scale.view(), rows,
                                      from.size(1));
  const Tensor scales = result.scale.host();
  check(std::ranges::all_of(scales.values<float>(), [](float scale) { return std::isfinite(scale); }),
        not_finite);
  return result;
}

}  // namespace

Int8Matrix quantize(const Tensor& weight) {
  check_matrix(weight);
  if (weight.on_gpu()) return quantize_on_gpu(weight.detach());
  const Tensor from = cast(weight.detach(), DType::f32);
  const int64_t rows = from.size(0), columns = from.size(1);
  Int8Matrix result{Tensor::empty(from.shape(), DType::i8), Tensor::empty({rows, 1})};
  const float* in = from.data<float>();
  auto* out = result.values.mutable_data<int8_t>();
  float* scales = result.scale.mutable_data<float>();
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = in + r * columns;
      float largest = 0;
      for (int64_t i = 0; i < columns; ++i) {
        check(std::isfinite(row[i]), not_finite);
        largest = std::max(largest, std::abs(row[i]));
      }
      // A subnormal scale has an infinite inverse, or nearly so: such rows are zero.
      scales[r] = largest / 127.0f < std::numeric_limits<float>::min() ? 0.0f : largest / 127.0f;
      const float inverse = scales[r] > 0 ? 1.0f / scales[r] : 0.0f;
      for (int64_t i = 0; i < columns; ++i)
        out[r * columns + i] =
            static_cast<int8_t>(std::clamp(std::nearbyint(row[i] * inverse), -127.0f, 127.0f));
    }
  });
  return result;
}

Tensor dequantize(const Int8Matrix& weight, DType dtype) {
  check_pair(weight);
  const Device& device = weight.values.device();
  check_type("dequantize", dtype, device);
  const int64_t rows = weight.values.size(0), columns = weight.values.size(1);
  Tensor result = Tensor::empty(weight.values.shape(), dtype, device);
  if (device.is_gpu()) {
    const Tensor scale = weight.scale.to(device);
    gpu_kernels().product.dequantize_rows(weight.values.view(), scale.view(), result.view(), rows, columns);
    return result;
  }
  const auto* in = weight.values.data<int8_t>();
  const float* scales = weight.scale.data<float>();
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    cpu::scale_rows(in + begin * columns, scales + begin, end - begin, columns,
                    element(result, begin * columns), dtype);
  });
  return result;
}

bool have_int8_products(const Device& device) {
  if (device.is_gpu()) return false;
  return onednn::have(dnnl::cpu_isa::avx512_core_vnni) || onednn::have(dnnl::cpu_isa::avx2_vnni);
}

struct PackedInt8Weight::State {
  int64_t in, out;
  Tensor scale;  // (out, 1)
  Tensor sums;   // (out) i32: Σ over the inputs of the rounded weights
  memory packed;
  std::mutex mutex;
  std::map<std::pair<int64_t, int>, dnnl::matmul> primitives;  // by rows and threads

  explicit State(const Int8Matrix& weight);
  void pack(const int8_t* values);

  dnnl::matmul::primitive_desc describe(int64_t rows, const memory::desc& weights) const {
    return onednn::make_descriptor(dense(rows, in, memory::data_type::u8), weights, {},
                                   dense(rows, out, memory::data_type::s32), {});
  }
  dnnl::matmul primitive(int64_t rows) {
    const std::scoped_lock lock(mutex);
    if (const auto found = primitives.find({rows, threads()}); found != primitives.end()) return found->second;
    constexpr size_t most = 64;  // a sampler needs a few, texts come in hundreds of lengths
    const auto made = onednn::translated([&] { return dnnl::matmul(describe(rows, packed.get_desc())); });
    if (primitives.size() >= most) primitives.clear();
    return primitives.emplace(std::pair(rows, threads()), made).first->second;
  }
};

PackedInt8Weight::State::State(const Int8Matrix& weight)
    : in(weight.values.size(1)), out(weight.values.size(0)), scale(weight.scale.detach()),
      sums(Tensor::empty({out}, DType::i32)) {
  // 255·127·in must not leave 32 bits.
  check(in <= 65536, "an 8-bit linear layer has at most 65536 inputs, not {}", in);
  const auto* values = weight.values.data<int8_t>();
  auto* sum = sums.mutable_data<int32_t>();
  for (int64_t r = 0; r < out; ++r) {
    sum[r] = 0;
    for (int64_t i = 0; i < in; ++i) sum[r] += values[r * in + i];
  }
  onednn::translated([&] { pack(values); });
}

void PackedInt8Weight::State::pack(const int8_t* values) {
  const memory::desc any({in, out}, memory::data_type::s8, memory::format_tag::any);
  packed = memory(describe(block_rows(out), any).weights_desc(), onednn::engine());
  memory plain = onednn::wrap({{in, out}, memory::data_type::s8, {1, in}}, values);
  dnnl::reorder(plain, packed).execute(onednn::stream(), plain, packed);
  onednn::stream().wait();
}

PackedInt8Weight::PackedInt8Weight(const Int8Matrix& weight) {
  check_pair(weight);
  // oneDNN multiplies without them, too, but sums pairs in 16 bits, which overflow: numbers would be wrong.
  check(have_int8_products(),
        "this processor has no exact products in 8 bits, which on x86 take VNNI: dequantize the weight");
  state_ = std::make_shared<State>(weight);
}

Tensor linear(const Tensor& x, const PackedInt8Weight& weight, const Tensor& bias, Activation activation,
              DType out_dtype) {
  PackedInt8Weight::State& state = *weight.state_;
  check_type("linear", x);
  check_type("linear", out_dtype);
  check(x.shape().rank() > 0 && x.shape()[-1] == state.in, "a linear layer of {} inputs got shape {}", state.in,
        to_string(x.shape()));
  check(!bias.defined() || (bias.numel() == state.out && bias.dtype() == DType::f32),
        "a bias of {} f32 is wanted, not one of shape {}", state.out,
        bias.defined() ? to_string(bias.shape()) : "");
  Tensor y = Tensor::empty(x.shape().with_last(state.out), out_dtype);
  const int64_t rows = x.shape().rows(), block = std::min(rows, block_rows(state.out));
  if (y.numel() == 0) return y;

  Tensor q = Tensor::empty({block, state.in}, DType::u8), sums = Tensor::empty({block, state.out}, DType::i32);
  std::vector<cpu::TokenScale> scales(static_cast<size_t>(block));
  const cpu::Int8Result result{sums.data<int32_t>(),
                               scales.data(),
                               state.scale.data<float>(),
                               state.sums.data<int32_t>(),
                               bias.defined() ? bias.data<float>() : nullptr,
                               activation};
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t end = std::min(rows, begin + block);
    cpu::quantize_tokens(x, begin, end, q.mutable_data<uint8_t>(), scales.data());
    onednn::run(
        state.primitive(end - begin),
        {{DNNL_ARG_SRC, onednn::wrap(dense(end - begin, state.in, memory::data_type::u8), q.raw())},
         {DNNL_ARG_WEIGHTS, state.packed},
         {DNNL_ARG_DST, onednn::wrap(dense(end - begin, state.out, memory::data_type::s32), sums.raw())}});
    cpu::write_int8_result(result, begin, end, y);
  }
  return y;
}

}  // namespace linnet::ops
