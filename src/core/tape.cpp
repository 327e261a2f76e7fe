#include "core/tape.h"

#include "core/parallel.h"

namespace linnet {
namespace {

thread_local Tape* active_tape = nullptr;

}  // namespace

Tape::Tape() : outer_(active_tape) { active_tape = this; }
Tape::~Tape() { active_tape = outer_; }
Tape* Tape::active() { return active_tape; }

NoGrad::NoGrad() : outer_(active_tape) { active_tape = nullptr; }
NoGrad::~NoGrad() { active_tape = outer_; }

void Tape::backward(const Tensor& output, const Tensor& seed) {
  check(output.requires_grad(), "backward() from a tensor that depends on no parameter");
  check(!seed.defined() || seed.numel() == output.numel(), "a gradient of shape {} for a tensor of shape {}",
        to_string(seed.shape()), to_string(output.shape()));
  NoGrad no_grad;
  accumulate_grad(output.grad_slot(),
                  (seed.defined() ? seed : Tensor::full(output.shape(), 1.0f)).to(output.device()));
  while (!steps_.empty()) {
    steps_.back()();
    steps_.pop_back();
  }
}

void accumulate_grad(const std::shared_ptr<GradSlot>& slot, Tensor gradient) {
  if (!slot) return;
  if (!slot->value) {
    slot->value = std::make_unique<Tensor>(gradient.detach());
    return;
  }
  // The sum gets memory of its own: the first contribution may be shared with other slots.
  if (gradient.on_gpu()) {
    Tensor sum = Tensor::empty(gradient.shape(), DType::f32, gradient.device());
    gpu().add(slot->value->to(gradient.device()).view(), gradient.view(), sum.view(), sum.numel());
    *slot->value = sum;
    return;
  }
  const Tensor left = slot->value->to(DType::f32), right = gradient.to(DType::f32);
  Tensor sum = Tensor::empty(left.shape());
  const float *a = left.data<float>(), *b = right.data<float>();
  float* out = sum.mutable_data<float>();
  parallel_for(sum.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = a[i] + b[i];
  });
  *slot->value = sum;
}

Tensor checkpoint(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                  const std::vector<Tensor>& inputs) {
  if (!Tape::active()) return f(inputs);
  Tensor output;
  {
    NoGrad no_grad;
    output = f(inputs).detach();
  }
  record_backward(output, [f, inputs](const Tensor& gradient) {
    std::vector<Tensor> leaves;
    for (const Tensor& input : inputs) {
      leaves.push_back(input.detach());
      leaves.back().set_requires_grad(input.requires_grad());
    }
    Tape tape;
    const Tensor again = f(leaves);
    if (!again.requires_grad()) return;  // neither an input nor a leaf that f uses is learned
    tape.backward(again, gradient);
    for (size_t i = 0; i < inputs.size(); ++i)
      if (const Tensor g = leaves[i].grad(); g.defined()) accumulate_grad(inputs[i].grad_slot(), g);
  });
  return output;
}

}  // namespace linnet
