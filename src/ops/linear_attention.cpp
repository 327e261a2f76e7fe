#include "ops/linear_attention.h"

#include "core/tape.h"
#include "ops/depthwise_conv_cpu.h"
#include "ops/element.h"
#include "ops/gpu_kernels.h"
#include "ops/linear_attention_cpu.h"
#include "ops/tile.h"

namespace linnet::ops {
namespace {

void check_shapes(const Tensor& q, const Tensor& kv, int64_t heads) {
  check(q.shape().rank() == 3 && kv.shape() == q.shape().with_last(2 * q.size(2)) && q.dtype() == kv.dtype(),
        "linear_attention: q {} and kv {} do not go together", to_string(q.shape()), to_string(kv.shape()));
  check_type("linear_attention", q);
  check(heads > 0 && q.size(2) % heads == 0, "{} heads cannot share {} channels evenly", heads, q.size(2));
}

// What the operation needs beside q and kv; without convolution, weight and bias are undefined.
struct Settings {
  int64_t heads;
  FeatureMap map;
  Tensor weight, bias;
  cpu::TokenGrid grid;
};

struct Result {
  Tensor out, state;
};

GpuLinearAttention for_gpu(const Tensor& q, const Tensor& kv, const Settings& s) {
  GpuLinearAttention in{q.view(),
                        kv.view(),
                        q.size(0),
                        q.size(1),
                        s.heads,
                        q.size(2) / s.heads,
                        s.map == FeatureMap::relu ? GpuFeatureMap::relu : GpuFeatureMap::none,
                        s.weight.view(),
                        s.bias.view()};
  if (!s.weight.defined()) return in;
  in.rows = s.grid.rows;
  in.columns = s.grid.columns;
  in.kernel = s.weight.size(-1);
  return in;
}

Result forward(const Tensor& q, const Tensor& kv, const Settings& s) {
  Result result{Tensor::empty(q.shape(), q.dtype(), q.device()), {}};
  if (q.on_gpu()) {
    const GpuLinearAttention in = for_gpu(q, kv, s);
    const auto bytes = static_cast<int64_t>(gpu_kernels().linear_attention.state_bytes(in));
    result.state = Tensor::empty({bytes}, DType::u8, q.device());
    gpu_kernels().linear_attention.forward(in, result.out.view(), result.state.view().data);
    return result;
  }
  const int64_t head_size = q.size(2) / s.heads;
  result.state = Tensor::empty({q.size(0) * s.heads, head_size + 1, pad_tile(head_size)});
  cpu::linear_attention_forward(q, kv, s.heads, s.map, result.out, result.state);
  if (s.weight.defined()) cpu::depthwise_conv_add(kv, s.weight, s.bias, s.grid, result.out);
  return result;
}

struct Gradients {
  Tensor dq, dkv, dweight, dbias;
};

Gradients backward(const Tensor& g, const Tensor& q, const Tensor& kv, const Tensor& state, const Settings& s) {
  Gradients d{Tensor::empty(q.shape(), q.dtype(), q.device()),
              Tensor::empty(kv.shape(), kv.dtype(), q.device()),
              {},
              {}};
  if (s.weight.defined()) {
    d.dweight = Tensor::empty(s.weight.shape(), DType::f32, q.device());
    d.dbias = Tensor::empty(s.bias.shape(), DType::f32, q.device());
  }
  if (q.on_gpu()) {
    gpu_kernels().linear_attention.backward(for_gpu(q, kv, s), g.to(q.dtype()).view(), state.view().data,
                                            d.dq.view(), d.dkv.view(), d.dweight.view(), d.dbias.view());
    return d;
  }
  cpu::linear_attention_backward(g, q, kv, state, s.heads, s.map, d.dq, d.dkv);
  if (s.weight.defined()) cpu::depthwise_conv_backward(g, kv, s.weight, s.grid, d.dkv, d.dweight, d.dbias);
  return d;
}

Tensor attend(const Tensor& q, const Tensor& kv, const Settings& s) {
  auto [out, state] = forward(q, kv, s);
  if (wants_grad(q, kv, s.weight, s.bias))
    record_backward(
        out, [q = q.detach(), kv = kv.detach(), state = state,
              s = Settings{s.heads, s.map, s.weight.detach(), s.bias.detach(), s.grid}, dq_slot = q.grad_slot(),
              dkv_slot = kv.grad_slot(), dweight_slot = s.weight.grad_slot(),
              dbias_slot = s.bias.grad_slot()](const Tensor& g) {
          const Gradients d = backward(g, q, kv, state, s);
          accumulate_grad(dq_slot, d.dq);
          accumulate_grad(dkv_slot, d.dkv);
          accumulate_grad(dweight_slot, d.dweight);
          accumulate_grad(dbias_slot, d.dbias);
        });
  return out;
}

}  // namespace

Tensor linear_attention(const Tensor& q, const Tensor& kv, int64_t heads, FeatureMap map) {
  check_shapes(q, kv, heads);
  return attend(q, kv, {heads, map, {}, {}, {}});
}

Tensor linear_attention_conv(const Tensor& q, const Tensor& kv, const Tensor& weight, const Tensor& bias,
                             int64_t heads, int64_t rows, int64_t columns, FeatureMap map) {
  check_shapes(q, kv, heads);
  check(weight.defined() && bias.defined(), "depth-wise convolution: its filters or their bias are missing");
  const int64_t head_size = q.size(2) / heads, k = weight.shape().rank() == 4 ? weight.size(3) : 0;
  check(rows > 0 && columns > 0 && rows * columns == q.size(1), "a {}x{} grid does not hold {} tokens", rows,
        columns, q.size(1));
  check(weight.shape() == Shape{head_size, 1, k, k} && k % 2 == 1 && k <= 7 && bias.shape() == Shape{head_size},
        "depth-wise convolution: weight {} and bias {} do not fit {} channels a head",
        to_string(weight.shape()), to_string(bias.shape()), head_size);
  check(weight.dtype() == DType::f32 && bias.dtype() == DType::f32,
        "depth-wise convolution: weight and bias are f32, not {} and {}", name_of(weight.dtype()),
        name_of(bias.dtype()));
  // A streamed model's weights may lie elsewhere.
  return attend(q, kv, {heads, map, weight.to(q.device()), bias.to(q.device()), {rows, columns}});
}

}  // namespace linnet::ops
