#include "cuda/emulation/emulation.h"

#include <array>
#include <memory>
#include <vector>

#include "core/error.h"
#include "core/poison.h"
#include "cuda/runtime.h"

#if defined(__SANITIZE_ADDRESS__)
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

thread_local Place here;
thread_local dim3 block_size, grid_size;

namespace {

constexpr size_t stack_bytes = 256 * 1024;
constexpr int warp_lanes = 32;

struct Fiber {
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(stack_bytes);
  void* at = nullptr;
  bool done = false;
};

// Of those that must meet: how many there are, how many wait, and how often they have met.
struct Barrier {
  int alive = 0, waiting = 0, met = 0;
};

struct alignas(16) Slot {
  char bytes[16];
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  std::vector<Slot> slots;
  Barrier all;
  std::array<Barrier, 16> named;
  int current = 0, count = 0, left = 0;
  void* scheduler = nullptr;
  const void* scheduler_stack = nullptr;  // known to the address sanitizer only
  size_t scheduler_stack_bytes = 0;
  const std::function<void()>* body = nullptr;
  std::vector<char> shared;
  std::exception_ptr problem;
};

Block& block() {
  thread_local Block instance;
  return instance;
}

void place(int thread) {
  const auto t = static_cast<unsigned>(thread);
  here.thread = dim3(t % block_size.x, t / block_size.x % block_size.y, t / block_size.x / block_size.y);
}

void leave(Barrier& barrier) {
  --barrier.alive;
  if (barrier.alive > 0 && barrier.waiting == barrier.alive) {
    barrier.waiting = 0;
    ++barrier.met;
  }
}

// To the next fiber that is not done, or, from the last one, back to run().
void switch_on(bool ending) {
  Block& b = block();
  const int from = b.current;
  void* target = b.scheduler;
  if (b.left > 0) {
    do b.current = (b.current + 1) % b.count;
    while (b.fibers[static_cast<size_t>(b.current)].done);
    if (b.current == from && !ending) return;
    target = b.fibers[static_cast<size_t>(b.current)].at;
    place(b.current);
  }
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  const bool to_fiber = b.left > 0;
  __sanitizer_start_switch_fiber(
      ending ? nullptr : &fake,
      to_fiber ? b.fibers[static_cast<size_t>(b.current)].stack.get() : b.scheduler_stack,
      to_fiber ? stack_bytes : b.scheduler_stack_bytes);
#endif
  linnet_switch_fiber(&b.fibers[static_cast<size_t>(from)].at, target);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void fiber_main() {
  Block& b = block();
#if defined(__SANITIZE_ADDRESS__)
  const bool first = b.current == 0;  // which comes from the scheduler
  __sanitizer_finish_switch_fiber(nullptr, first ? &b.scheduler_stack : nullptr,
                                  first ? &b.scheduler_stack_bytes : nullptr);
#endif
  try {
    (*b.body)();
  } catch (...) {
    b.problem = std::current_exception();
  }
  Fiber& own = b.fibers[static_cast<size_t>(b.current)];
  own.done = true;
  --b.left;
  leave(b.all);
  leave(b.warps[static_cast<size_t>(b.current / warp_lanes)]);
  switch_on(true);
}

void prepare(Fiber& fiber) {
  // The functions in which the fiber before it ended never returned: the address sanitizer still watches
  // between their variables.
  constexpr size_t left = 16 * 1024;
  unpoison(fiber.stack.get() + stack_bytes - left, left);
  auto top = reinterpret_cast<uintptr_t>(fiber.stack.get() + stack_bytes) / 16 * 16;
  auto* at = reinterpret_cast<void**>(top);
  *--at = nullptr;  // so that the function begins with the stack as after a call
  *--at = reinterpret_cast<void*>(&fiber_main);
  for (int i = 0; i < 6; ++i) *--at = nullptr;
  fiber.at = at;
  fiber.done = false;
}

void meet(Barrier& barrier) {
  const int met = barrier.met;
  if (++barrier.waiting == barrier.alive) {
    barrier.waiting = 0;
    ++barrier.met;
    return;
  }
  while (barrier.met == met) switch_on(false);
}

Barrier& own_warp() { return block().warps[static_cast<size_t>(block().current / warp_lanes)]; }

void run_block() {
  Block& b = block();
  for (int i = 0; i < b.count; ++i) prepare(b.fibers[static_cast<size_t>(i)]);
  const auto warps = static_cast<size_t>((b.count + warp_lanes - 1) / warp_lanes);
  b.warps.assign(warps, {});
  for (int i = 0; i < b.count; ++i) ++b.warps[static_cast<size_t>(i / warp_lanes)].alive;
  b.all = {b.count, 0, 0};
  b.named = {};
  b.left = b.count;
  b.current = 0;
  place(0);
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, b.fibers[0].stack.get(), stack_bytes);
#endif
  linnet_switch_fiber(&b.scheduler, b.fibers[0].at);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  if (b.problem) std::rethrow_exception(std::exchange(b.problem, nullptr));
}

// Bytes that a block may have.
size_t most_shared() {
  switch (architecture_of_kernels()) {
    case 75: return 64 * 1024;
    case 80: return 163 * 1024;
    case 86:
    case 89: return 99 * 1024;
    default: return 227 * 1024;
  }
}

}  // namespace

char* dynamic_shared() {
  auto at = reinterpret_cast<uintptr_t>(block().shared.data());
  return reinterpret_cast<char*>((at + 1023) / 1024 * 1024);
}

void sync_block() { meet(block().all); }
void come_to_barrier(int name, int threads, bool waits) {
  Barrier& barrier = block().named.at(static_cast<size_t>(name));
  barrier.alive = threads;
  if (waits || barrier.waiting + 1 == threads)
    meet(barrier);
  else
    ++barrier.waiting;
}
void sync_warp() { meet(own_warp()); }
int lane() { return block().current % warp_lanes; }

void publish(const void* own, size_t bytes) {
  sync_warp();  // the values before have been read
  std::memcpy(block().slots[static_cast<size_t>(block().current)].bytes, own, bytes);
  sync_warp();
}

const void* exchanged(int from) {
  return block().slots[static_cast<size_t>(block().current / warp_lanes * warp_lanes + from)].bytes;
}

void exchange(const void* own, size_t bytes, int from, void* result) {
  publish(own, bytes);
  std::memcpy(result, exchanged(from), bytes);
}

void run(const dim3& grid, const dim3& size, size_t shared, const std::function<void()>& body) {
  Block& b = block();
  check(size.x * size.y * size.z >= 1 && size.x * size.y * size.z <= 1024 && grid.x > 0 && grid.y > 0 &&
            grid.z > 0 && grid.y < 65536 && grid.z < 65536 && shared <= most_shared(),
        "a kernel cannot run as {}x{}x{} blocks of {}x{}x{} threads with {} bytes of shared memory", grid.x,
        grid.y, grid.z, size.x, size.y, size.z, shared);
  block_size = size;
  grid_size = grid;
  b.count = static_cast<int>(size.x * size.y * size.z);
  if (b.fibers.size() < static_cast<size_t>(b.count)) b.fibers.resize(static_cast<size_t>(b.count));
  b.slots.resize(static_cast<size_t>((b.count + warp_lanes - 1) / warp_lanes * warp_lanes));
  b.body = &body;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        here.block = dim3(x, y, z);
        b.shared.assign(shared + 1024, '\x7f');  // what a block finds there is never what it wants
        run_block();
      }
}

}  // namespace linnet::cuda::emulation
