// Automatic differentiation. While a Tape lives, every operation with an input that wants a gradient adds one
// backward step to it; backward() plays them in reverse, each freed as soon as it has run, and with it the
// activations that it kept. Without a Tape, operations record nothing and keep nothing alive.
#pragma once

#include <functional>
#include <vector>

#include "core/tensor.h"

namespace linnet {

class Tape {
 public:
  /// From here on, this thread's operations are recorded on this tape.
  Tape();
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// The tape that this thread records on, or null.
  static Tape* active();

  /// Plays the tape backward from output, whose gradient is seed (of output's size; ones if undefined). Leaves'
  /// gradients are added to what they hold. The tape is empty afterwards.
  void backward(const Tensor& output, const Tensor& seed = {});

  void record(std::function<void()> step) { steps_.push_back(std::move(step)); }

 private:
  Tape* outer_;
  std::vector<std::function<void()>> steps_;
};

/// While it lives, this thread records nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  Tape* outer_;
};

/// True if an operation on these inputs has to record a backward step.
template <class... Tensors>
bool wants_grad(const Tensors&... inputs) {
  return Tape::active() != nullptr && (inputs.requires_grad() || ...);
}

/// Adds a gradient (f32 or bf16, any shape of the same size) to what a slot holds; does nothing for a null
/// slot.
void accumulate_grad(const std::shared_ptr<GradSlot>& slot, Tensor gradient);

/// Marks output as wanting a gradient and records step, which is called with that gradient in output's shape,
/// if any arrived, when the tape is played. The step must not hold output itself, only what it needs of it.
template <class Step>
void record_backward(Tensor& output, Step step) {
  output.set_requires_grad(true);
  Tape::active()->record([slot = output.grad_slot(), shape = output.shape(), step = std::move(step)]() mutable {
    if (slot->value) step(slot->value->reshape(shape));
  });
}

/// Runs f on inputs keeping only the inputs alive, and runs it again during the backward pass (gradient
/// checkpointing). f must be a pure function of inputs and of leaves. In 16 bits the second pass may round
/// otherwise than the first: without a tape an activation is fused into the product before it, and with one the
/// product is rounded in between. Gradients are those of the second pass.
Tensor checkpoint(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                  const std::vector<Tensor>& inputs);

}  // namespace linnet
