#include "ops/softmax_attention.h"

#include <array>
#include <cmath>

#include "core/tape.h"
#include "ops/element.h"
#include "ops/softmax_attention_cpu.h"
#include "ops/softmax_gpu.h"

namespace linnet::ops {
namespace {

// The batch's samples are sequences of the same length.
GpuAttention on_gpu(const cpu::SoftmaxInputs& in, int64_t width, int64_t heads) {
  const Tensor &q = in.q.tensor, &k = in.k.tensor;
  GpuAttention result{};
  result.q = column_view(in.q);
  result.k = column_view(in.k);
  result.v = column_view(in.v);
  result.sequences = q.size(0);
  result.queries = q.size(0) * q.size(1);
  result.keys = k.size(0) * k.size(1);
  result.longest_queries = q.size(1);
  result.longest_keys = k.size(1);
  result.heads = heads;
  result.head_size = width / heads;
  result.scale = 1.0f / std::sqrt(static_cast<float>(result.head_size));
  return result;
}

void forward(const cpu::SoftmaxInputs& in, int64_t heads, Tensor& out, Tensor& sums) {
  if (!out.on_gpu()) return cpu::softmax_attention_forward(in, heads, out, sums);
  gpu_kernels().softmax.forward(on_gpu(in, out.size(2), heads), out.view(), sums.view());
}

void backward(const Tensor& g, const cpu::SoftmaxInputs& in, const Tensor& out, const Tensor& sums,
              int64_t heads, cpu::SoftmaxInputs& into) {
  if (!out.on_gpu()) return cpu::softmax_attention_backward(g, in, out, sums, heads, into);
  gpu_kernels().softmax.backward(on_gpu(in, out.size(2), heads), g.view(), out.view(), sums.view(),
                                 column_view(into.q), column_view(into.k), column_view(into.v), {});
}

// record(out, sums) says how gradients flow back, if any are wanted; sums are of the rows of scores.
template <class Record>
Tensor attend(const cpu::SoftmaxInputs& in, int64_t width, int64_t heads, bool records, Record record) {
  const Tensor& q = in.q.tensor;
  Tensor out = Tensor::empty(q.shape().with_last(width), q.dtype(), q.device());
  // On the CPU two of each row, and a sample's heads follow one another; on the GPU log Σ exp(scores), and a
  // head's samples do.
  const int64_t states = q.size(0) * heads;
  const Shape shape = q.on_gpu() ? Shape{states, q.size(1)} : Shape{2, states, q.size(1)};
  Tensor sums = Tensor::empty(shape, DType::f32, q.device());
  forward(in, heads, out, sums);
  if (records) record(out, sums);
  return out;
}

// The thirds of rows of q, k and v.
cpu::SoftmaxInputs thirds(const Tensor& qkv) {
  const int64_t width = qkv.size(2) / 3;
  return {{qkv, 0}, {qkv, width}, {qkv, 2 * width}};
}

}  // namespace

Tensor softmax_attention(const Tensor& qkv, int64_t heads) {
  check(qkv.shape().rank() == 3 && qkv.size(2) % 3 == 0 && heads > 0 && qkv.size(2) / 3 % heads == 0,
        "softmax_attention: {} heads cannot share qkv of shape {}", heads, to_string(qkv.shape()));
  check_type("softmax_attention", qkv);
  const cpu::SoftmaxInputs in = thirds(qkv.detach());
  return attend(in, qkv.size(2) / 3, heads, wants_grad(qkv), [&](Tensor& out, const Tensor& sums) {
    record_backward(out, [in, out = out.detach(), sums, heads, slot = qkv.grad_slot()](const Tensor& g) {
      const Tensor dqkv = Tensor::empty(in.q.tensor.shape(), in.q.tensor.dtype(), g.device());
      cpu::SoftmaxInputs into = thirds(dqkv);
      backward(g, in, out, sums, heads, into);
      accumulate_grad(slot, dqkv);
    });
  });
}

Tensor softmax_attention(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads) {
  for (const Tensor& x : {q, k, v}) check_type("softmax_attention", x);
  check(q.shape().rank() == 3 && k.shape().rank() == 3 && k.size(0) == q.size(0) && k.size(1) > 0 &&
            k.size(2) == q.size(2) && v.shape() == k.shape() && k.dtype() == q.dtype() &&
            v.dtype() == q.dtype(),
        "softmax_attention: q {}, k {} and v {} do not go together", to_string(q.shape()), to_string(k.shape()),
        to_string(v.shape()));
  check(heads > 0 && q.size(2) % heads == 0, "softmax_attention: {} heads cannot share a width of {}", heads,
        q.size(2));
  const cpu::SoftmaxInputs in{{q.detach()}, {k.detach()}, {v.detach()}};
  return attend(in, q.size(2), heads, wants_grad(q, k, v), [&](Tensor& out, const Tensor& sums) {
    record_backward(out, [in, out = out.detach(), sums, heads,
                          slots = std::array{q.grad_slot(), k.grad_slot(), v.grad_slot()}](const Tensor& g) {
      const auto like = [](const Columns& x) {
        return Tensor::empty(x.tensor.shape(), x.tensor.dtype(), x.tensor.device());
      };
      cpu::SoftmaxInputs into{{like(in.q)}, {like(in.k)}, {like(in.v)}};
      backward(g, in, out, sums, heads, into);
      accumulate_grad(slots[0], into.q.tensor);
      accumulate_grad(slots[1], into.k.tensor);
      accumulate_grad(slots[2], into.v.tensor);
    });
  });
}

}  // namespace linnet::ops
