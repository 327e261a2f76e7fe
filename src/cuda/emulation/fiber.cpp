#include "cuda/emulation/fiber.h"

#include <cstdint>

#include "core/poison.h"

#ifdef LINNET_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the registers that a call keeps, changes stacks, and takes up the other one's.
asm(R"(
.text
.type linnet_switch_fiber, @function
linnet_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size linnet_switch_fiber, .-linnet_switch_fiber
)");
extern "C" void linnet_switch_fiber(void** save, void* to);

namespace linnet::cuda::emulation {

#ifdef LINNET_FIND_RACES
Witness::Witness() : context_(__tsan_create_fiber(0)), own_(true) {}
Witness::Witness(OfThisThread) : context_(__tsan_get_current_fiber()) {}
Witness::~Witness() {
  if (own_) __tsan_destroy_fiber(context_);
}
void Witness::take_over() const { __tsan_switch_to_fiber(context_, __tsan_switch_to_fiber_no_sync); }
#else
Witness::Witness() = default;
Witness::Witness(OfThisThread) {}
Witness::~Witness() = default;
void Witness::take_over() const {}
#endif

Fiber::Fiber()
    : own_stack_(std::make_unique<char[]>(stack_bytes)), stack_(own_stack_.get()), bytes_(stack_bytes) {}
Fiber::Fiber(Witness::OfThisThread which) : witness_(which) {}

void Fiber::prepare(void (*main)()) {
  char* const end = own_stack_.get() + stack_bytes;
  // The functions in which the fiber before it ended never returned: the address sanitizer still watches
  // between their variables.
  constexpr size_t left = 16 * 1024;
  unpoison(end - left, left);
  auto* at = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(end) / 16 * 16);
  *--at = nullptr;  // so that the function begins with the stack as after a call
  *--at = reinterpret_cast<void*>(main);
  for (int i = 0; i < 6; ++i) *--at = nullptr;
  at_ = at;
}

void Fiber::switch_to(Fiber& to, [[maybe_unused]] bool ending) {
#ifdef LINNET_ADDRESS_SANITIZER
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(ending ? nullptr : &fake, to.stack_, to.bytes_);
#endif
  to.witness_.take_over();
  linnet_switch_fiber(&at_, to.at_);
#ifdef LINNET_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void arrive([[maybe_unused]] Fiber* thread) {
#ifdef LINNET_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, thread ? &thread->stack_ : nullptr,
                                  thread ? &thread->bytes_ : nullptr);
#endif
}

}  // namespace linnet::cuda::emulation
