#include "ops/ragged_attention.h"

#include <algorithm>
#include <array>

#include "core/tape.h"
#include "ops/element.h"
#include "ops/ragged_attention_cpu.h"

namespace linnet::ops {
namespace {

void check_offsets(const Offsets& offsets, int64_t tokens, int64_t least) {
  bool fits = offsets.size() >= 2 && offsets.front() == 0 && offsets.back() == tokens;
  for (size_t i = 1; fits && i < offsets.size(); ++i) fits = offsets[i] - offsets[i - 1] >= least;
  check(fits, "ragged_attention: sequences of {} tokens do not begin where it is said", tokens);
}

int64_t longest(const Offsets& offsets) {
  int64_t result = 0;
  for (size_t i = 1; i < offsets.size(); ++i) result = std::max(result, offsets[i] - offsets[i - 1]);
  return result;
}

void check_inputs(const cpu::RaggedInputs& in, const RaggedAttention& how, int64_t width) {
  const Tensor &q = in.q.tensor, &k = in.k.tensor, &v = in.v.tensor;
  for (const Tensor* tensor : {&q, &k, &v}) {
    check_type("ragged_attention", *tensor);
    check(tensor->shape().rank() == 2 && tensor->dtype() == q.dtype(),
          "ragged_attention: q, k and v are matrices of one type");
  }
  check(how.heads > 0 && width % how.heads == 0, "ragged_attention: {} heads cannot share a width of {}",
        how.heads, width);
  check_offsets(how.queries, q.size(0), 0);
  check_offsets(how.keys, k.size(0), 1);
  check(how.queries.size() == how.keys.size() && v.size(0) == k.size(0),
        "ragged_attention: queries, keys and values are not of the same sequences");
  if (!in.bias.defined()) return;
  const int64_t length = std::max(longest(how.queries), longest(how.keys));
  check(in.bias.dtype() == DType::f32 && in.bias.shape().rank() == 2 && in.bias.size(0) == how.heads &&
            in.bias.size(1) % 2 == 1 && in.bias.size(1) >= 2 * length - 1,
        "ragged_attention: a bias of shape {} does not reach over {} tokens", to_string(in.bias.shape()),
        length);
}

// record(out, log_sums) says how gradients flow back, if any are wanted.
template <class Record>
Tensor attend(const cpu::RaggedInputs& in, const RaggedAttention& how, bool records, Record record) {
  Tensor out = Tensor::empty({in.q.tensor.size(0), in.q.tensor.size(1)}, in.q.tensor.dtype());
  Tensor log_sums = Tensor::empty({how.heads, in.q.tensor.size(0)});
  cpu::ragged_attention_forward(in, how, out, log_sums);
  if (records) record(out, log_sums);
  return out;
}

}  // namespace

Offsets even_offsets(int64_t count, int64_t length) {
  Offsets result;
  for (int64_t i = 0; i <= count; ++i) result.push_back(i * length);
  return result;
}

Tensor ragged_attention(const Tensor& q, const Tensor& kv, const RaggedAttention& how) {
  check(q.defined() && kv.defined() && q.shape().rank() == 2 && kv.shape().rank() == 2 &&
            kv.size(1) == 2 * q.size(1),
        "ragged_attention: keys and values have twice the width of the queries");
  const int64_t width = q.size(1);
  const cpu::RaggedInputs in{{q.detach()}, {kv.detach(), 0}, {kv.detach(), width}, {}};
  check_inputs(in, how, width);
  return attend(in, how, wants_grad(q, kv), [&](Tensor& out, const Tensor& log_sums) {
    record_backward(out, [in, how, out = out.detach(), log_sums, q_slot = q.grad_slot(),
                          kv_slot = kv.grad_slot(), width](const Tensor& g) {
      const Tensor &q_in = in.q.tensor, &kv_in = in.k.tensor;
      const Tensor dq = Tensor::empty(q_in.shape(), q_in.dtype());
      const Tensor dkv = Tensor::empty(kv_in.shape(), kv_in.dtype());
      cpu::RaggedInputs into{{dq}, {dkv, 0}, {dkv, width}, {}};
      cpu::ragged_attention_backward(g, in, how, out, log_sums, into);
      accumulate_grad(q_slot, dq);
      accumulate_grad(kv_slot, dkv);
    });
  });
}

Tensor ragged_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
                        const RaggedAttention& how) {
  check(q.defined() && k.defined() && v.defined() && q.shape().rank() == 2 && k.shape().rank() == 2 &&
            k.size(1) == q.size(1) && v.shape() == k.shape(),
        "ragged_attention: queries, keys and values are of the same width");
  const cpu::RaggedInputs in{{q.detach()}, {k.detach()}, {v.detach()}, bias.detach()};
  check_inputs(in, how, q.size(1));
  return attend(in, how, wants_grad(q, k, v, bias), [&](Tensor& out, const Tensor& log_sums) {
    record_backward(out, [in, how, out = out.detach(), log_sums,
                          slots = std::array{q.grad_slot(), k.grad_slot(), v.grad_slot()},
                          bias_slot = bias.grad_slot()](const Tensor& g) {
      const auto like = [](const Tensor& x) { return Tensor::empty(x.shape(), x.dtype()); };
      cpu::RaggedInputs into{{like(in.q.tensor)}, {like(in.k.tensor)}, {like(in.v.tensor)}, {}};
      if (bias_slot) into.bias = Tensor::zeros(in.bias.shape());
      cpu::ragged_attention_backward(g, in, how, out, log_sums, into);
      accumulate_grad(slots[0], into.q.tensor);
      accumulate_grad(slots[1], into.k.tensor);
      accumulate_grad(slots[2], into.v.tensor);
      if (bias_slot) accumulate_grad(bias_slot, into.bias);
    });
  });
}

}  // namespace linnet::ops
