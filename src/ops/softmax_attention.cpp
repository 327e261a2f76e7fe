#include "ops/softmax_attention.h"

#include "core/tape.h"
#include "ops/element.h"
#include "ops/softmax_attention_cpu.h"

namespace linnet::ops {

Tensor softmax_attention(const Tensor& qkv, int64_t heads) {
  check(qkv.shape().rank() == 3 && qkv.size(2) % 3 == 0 && heads > 0 && qkv.size(2) / 3 % heads == 0,
        "softmax_attention: {} heads cannot share qkv of shape {}", heads, to_string(qkv.shape()));
  check_type("softmax_attention", qkv);
  Tensor out = Tensor::empty(qkv.shape().with_last(qkv.size(2) / 3), qkv.dtype());
  Tensor log_sums = Tensor::empty({qkv.size(0) * heads, qkv.size(1)});
  cpu::softmax_attention_forward(qkv, heads, out, log_sums);
  if (wants_grad(qkv))
    record_backward(out, [qkv = qkv.detach(), out = out.detach(), log_sums, heads,
                          slot = qkv.grad_slot()](const Tensor& g) {
      Tensor dqkv = Tensor::empty(qkv.shape(), qkv.dtype());
      cpu::softmax_attention_backward(g, qkv, out, log_sums, heads, dqkv);
      accumulate_grad(slot, dqkv);
    });
  return out;
}

}  // namespace linnet::ops
