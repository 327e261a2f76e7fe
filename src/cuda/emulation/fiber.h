// Functions that take turns on a thread of the system, each with a stack of its own. To the address sanitizer
// they are stacks; to the thread sanitizer each is a thread, and the only order between them is what
// come_before() and come_after() say.
#pragma once

#include <cstddef>
#include <memory>

#ifdef LINNET_FIND_RACES  // files that switch between fibers cannot be instrumented, and so cannot tell
#include <sanitizer/tsan_interface.h>
#endif

namespace linnet::cuda::emulation {

#ifdef LINNET_FIND_RACES
/// What this fiber has done so far comes before all that fibers do after come_after() of the same address.
inline void come_before(void* at) { __tsan_release(at); }
inline void come_after(void* at) { __tsan_acquire(at); }
#else
inline void come_before(void*) {}
inline void come_after(void*) {}
#endif

/// To the thread sanitizer, one who does and sees things in an order of its own. Without it, nothing.
class Witness {
 public:
  Witness();
  struct OfThisThread {};
  explicit Witness(OfThisThread);
  ~Witness();
  Witness(const Witness&) = delete;
  Witness& operator=(const Witness&) = delete;

  /// From here on what is done is done by this one.
  void take_over() const;
  /// action(), as done by this one
  template <class Action>
  void instead(Action&& action) const;

 private:
  void* context_ = nullptr;
  bool own_ = false;
};

class Fiber {
 public:
  static constexpr size_t stack_bytes = 256 * 1024;

  Fiber();
  /// From the next switch to it on it runs main(), which calls arrive() first and never returns.
  void prepare(void (*main)());
  /// Begins or takes up `to`, from this one or, where `ending`, from its last words.
  void switch_to(Fiber& to, bool ending = false);

  const Witness& witness() const { return witness_; }

 protected:
  explicit Fiber(Witness::OfThisThread);
  friend void arrive(Fiber* thread);

  std::unique_ptr<char[]> own_stack_;
  const void* stack_ = nullptr;  // its lower end
  size_t bytes_ = 0;
  void* at_ = nullptr;  // where it stopped
  Witness witness_;
};

/// A thread of the system, from which fibers are switched to.
struct Thread : Fiber {
  Thread() : Fiber(Witness::OfThisThread()) {}
};

/// First in a fiber's main(): `thread` if it comes from that.
void arrive(Fiber* thread);

template <class Action>
void Witness::instead([[maybe_unused]] Action&& action) const {
#ifdef LINNET_FIND_RACES
  void* const before = __tsan_get_current_fiber();
  take_over();
  action();
  __tsan_switch_to_fiber(before, __tsan_switch_to_fiber_no_sync);
#endif
}

}  // namespace linnet::cuda::emulation
