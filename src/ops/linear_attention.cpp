#include "ops/linear_attention.h"

#include "core/tape.h"
#include "ops/depthwise_conv_cpu.h"
#include "ops/element.h"
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

struct Result {
  Tensor out, state;
};

Result forward(const Tensor& q, const Tensor& kv, int64_t heads, FeatureMap map) {
  const int64_t head_size = q.size(2) / heads;
  Result result{Tensor::empty(q.shape(), q.dtype()),
                Tensor::empty({q.size(0) * heads, head_size + 1, pad_tile(head_size)})};
  cpu::linear_attention_forward(q, kv, heads, map, result.out, result.state);
  return result;
}

}  // namespace

Tensor linear_attention(const Tensor& q, const Tensor& kv, int64_t heads, FeatureMap map) {
  check_shapes(q, kv, heads);
  auto [out, state] = forward(q, kv, heads, map);
  if (wants_grad(q, kv))
    record_backward(out, [q = q.detach(), kv = kv.detach(), state = state, heads, map, dq_slot = q.grad_slot(),
                          dkv_slot = kv.grad_slot()](const Tensor& g) {
      Tensor dq = Tensor::empty(q.shape(), q.dtype()), dkv = Tensor::empty(kv.shape(), kv.dtype());
      cpu::linear_attention_backward(g, q, kv, state, heads, map, dq, dkv);
      accumulate_grad(dq_slot, dq);
      accumulate_grad(dkv_slot, dkv);
    });
  return out;
}

Tensor linear_attention_conv(const Tensor& q, const Tensor& kv, const Tensor& weight, const Tensor& bias,
                             int64_t heads, int64_t rows, int64_t columns, FeatureMap map) {
  check_shapes(q, kv, heads);
  const int64_t head_size = q.size(2) / heads, k = weight.size(-1);
  check(rows > 0 && columns > 0 && rows * columns == q.size(1), "a {}x{} grid does not hold {} tokens", rows,
        columns, q.size(1));
  check(weight.shape() == Shape{head_size, 1, k, k} && k % 2 == 1 && k <= 7 && bias.shape() == Shape{head_size},
        "depth-wise convolution: weight {} and bias {} do not fit {} channels a head",
        to_string(weight.shape()), to_string(bias.shape()), head_size);
  check(weight.dtype() == DType::f32 && bias.dtype() == DType::f32,
        "depth-wise convolution: weight and bias are f32, not {} and {}", name_of(weight.dtype()),
        name_of(bias.dtype()));
  auto [out, state] = forward(q, kv, heads, map);
  const cpu::TokenGrid grid{rows, columns};
  cpu::depthwise_conv_add(kv, weight, bias, grid, out);
  if (wants_grad(q, kv, weight, bias))
    record_backward(out, [q = q.detach(), kv = kv.detach(), weight = weight.detach(), state = state, heads, map,
                          grid, dq_slot = q.grad_slot(), dkv_slot = kv.grad_slot(),
                          dweight_slot = weight.grad_slot(), dbias_slot = bias.grad_slot()](const Tensor& g) {
      Tensor dq = Tensor::empty(q.shape(), q.dtype()), dkv = Tensor::empty(kv.shape(), kv.dtype());
      Tensor dweight = Tensor::empty(weight.shape()), dbias = Tensor::empty({weight.size(0)});
      cpu::linear_attention_backward(g, q, kv, state, heads, map, dq, dkv);
      cpu::depthwise_conv_backward(g, kv, weight, grid, dkv, dweight, dbias);
      accumulate_grad(dq_slot, dq);
      accumulate_grad(dkv_slot, dkv);
      accumulate_grad(dweight_slot, dweight);
      accumulate_grad(dbias_slot, dbias);
    });
  return out;
}

}  // namespace linnet::ops
