#include "cuda/emulation/emulation.h"

#include <algorithm>
#include <array>
#include <deque>
#include <exception>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/poison.h"
#include "cuda/emulation/fiber.h"
#include "cuda/runtime.h"

#ifdef LINNET_FIND_RACES
extern "C" void __tsan_read4(void* at);  // what the compiler puts before a read
#endif

namespace linnet::cuda::emulation {

thread_local Place here;
thread_local dim3 block_size, grid_size;

namespace {

constexpr int warp_lanes = 32;
// Blocks run one after the other; where races are looked for, so many at once, so that those between blocks are
// seen, too.
constexpr size_t blocks_at_once = finds_races ? 4 : 1;

// Work in groups, each done when it is waited for and not before; the last group is not committed yet.
struct Beside {
  std::deque<std::vector<std::function<void()>>> groups{1};
  int finished = 0;  // groups before these

  int open_group() const { return finished + static_cast<int>(groups.size()) - 1; }
  void add(std::function<void()> work) { groups.back().push_back(std::move(work)); }
  void commit() { groups.emplace_back(); }
  bool has_more_than(int most) const { return groups.size() > static_cast<size_t>(most) + 1; }
  void finish_one() {
    for (const auto& work : groups.front()) work();
    groups.pop_front();
    ++finished;
  }
  bool is_left() const {
    return std::any_of(groups.begin(), groups.end(), [](const auto& group) { return !group.empty(); });
  }
};

struct CudaThread : Fiber {
  bool done = false;
  Beside copies, products;
};

// Of those that must meet: how many there are, how many wait, and how often they have met; and what order that
// makes for them and for what is shown to products, in turns, lest a slow one sees what comes after the next
// time.
struct Barrier {
  int alive = 0, waiting = 0, met = 0;
  struct Order {
    char threads, shown;
  } order[2] = {};
};

struct alignas(16) Slot {
  char bytes[16];
};

// Products of groups of warps do not see what threads write to shared memory until that has been shown to them
// and a barrier been passed; and what they read may not be written over until they have been waited for. So to
// the thread sanitizer a warp's products are more threads. One knows what the warp's threads have shown; one
// what of all that has come through a barrier; and those of the groups of products under way, each of which
// knows what had come so far when its products began.
struct Warp : Barrier {
  static constexpr int most_groups = 4;
  Witness shown, seen;
  std::array<Witness, most_groups> readers;
};

struct Block {
  std::deque<CudaThread> threads;
  std::deque<Warp> warps;
  std::vector<Slot> slots;
  Barrier all;
  std::array<Barrier, 16> named;
  int current = 0, count = 0, left = 0;
  bool shows = false;  // any thread has shown something to products
  int turns = 0;       // in which threads have found their barriers closed, one after the other
  Thread* scheduler = nullptr;
  const std::function<void()>* body = nullptr;
  std::vector<char> shared;
  std::exception_ptr problem;
  char begin = 0, end = 0;  // of the block, for the order of what is done
};

thread_local Block* running = nullptr;
Block& block() { return *running; }
CudaThread& thread(int index) { return block().threads[static_cast<size_t>(index)]; }
CudaThread& own_thread() { return thread(block().current); }
Warp& own_warp() { return block().warps[static_cast<size_t>(block().current / warp_lanes)]; }

void place(int index) {
  const auto t = static_cast<unsigned>(index);
  here.thread = dim3(t % block_size.x, t / block_size.x % block_size.y, t / block_size.x / block_size.y);
}

void open(Barrier& barrier) {
  barrier.waiting = 0;
  ++barrier.met;
  block().turns = 0;
}

void leave(Barrier& barrier) {
  --barrier.alive;
  if (barrier.alive > 0 && barrier.waiting == barrier.alive) open(barrier);
}

// To the next thread that is not done, or, from the last one, back to run_block().
void switch_on(bool ending) {
  Block& b = block();
  CudaThread& from = own_thread();
  if (b.left == 0) return from.switch_to(*b.scheduler, ending);
  do b.current = (b.current + 1) % b.count;
  while (own_thread().done);
  if (&own_thread() == &from) return;
  place(b.current);
  from.switch_to(own_thread(), ending);
}

void thread_main() {
  Block& b = block();
  arrive(b.current == 0 ? b.scheduler : nullptr);
  come_after(&b.begin);
  CudaThread& own = own_thread();
  try {
    (*b.body)();
    check(!own.copies.is_left() && !own.products.is_left(),
          "a thread of a kernel ended before its copies or products");
  } catch (...) {
    if (!b.problem) b.problem = std::current_exception();
  }
  own.done = true;
  --b.left;
  b.turns = 0;
  come_before(&b.end);
  leave(b.all);
  leave(own_warp());
  switch_on(true);
}

void come_to(Barrier& barrier) {
  auto& order = barrier.order[barrier.met % 2];
  come_before(&order.threads);
  if (block().shows) own_warp().shown.instead([&] { come_before(&order.shown); });
}
void go_on_from(Barrier& barrier, int met) {
  auto& order = barrier.order[met % 2];
  come_after(&order.threads);
  if (block().shows) own_warp().seen.instead([&] { come_after(&order.shown); });
}

void meet(Barrier& barrier) {
  const int met = barrier.met;
  if (++barrier.waiting == barrier.alive) return open(barrier);
  while (barrier.met == met) {
    check(++block().turns <= 2 * block().count,
          "threads of a kernel wait for one another: {} of {} have come to a barrier", barrier.waiting,
          barrier.alive);
    switch_on(false);
  }
}

void meet_in_order(Barrier& barrier) {
  const int met = barrier.met;
  come_to(barrier);
  meet(barrier);
  go_on_from(barrier, met);
}

void run_block() {
  Block& b = block();
  Thread scheduler;
  b.scheduler = &scheduler;
  for (int i = 0; i < b.count; ++i) {
    thread(i).prepare(thread_main);
    thread(i).done = false;
    thread(i).copies = {};
    thread(i).products = {};
  }
  come_before(&b.begin);
  for (Warp& warp : b.warps) {
    static_cast<Barrier&>(warp) = {};
    for (const Witness* witness : {&warp.shown, &warp.seen}) witness->instead([&] { come_after(&b.begin); });
  }
  for (int i = 0; i < b.count; ++i) ++b.warps[static_cast<size_t>(i / warp_lanes)].alive;
  b.all = {b.count, 0, 0, {}};
  b.named = {};
  b.shows = false;
  b.turns = 0;
  b.left = b.count;
  b.current = 0;
  place(0);
  scheduler.switch_to(thread(0));
  for (Warp& warp : b.warps)
    for (const Witness& reader : warp.readers) reader.instead([&] { come_before(&b.end); });
  come_after(&b.end);
  if (b.problem) std::rethrow_exception(std::exchange(b.problem, nullptr));
}

// Which of the blocks that run at once a kernel's block is: so that those at any distance, also a power of two,
// may run at once.
size_t worker_of(size_t number) {
  if constexpr (blocks_at_once == 1) return 0;
  size_t digits = 0;  // their sum
  for (; number > 0; number /= blocks_at_once) digits += number % blocks_at_once;
  return digits % blocks_at_once;
}

// Memory of just so many bytes; what a block finds there is never what it wants.
void prepare_shared_memory(Block& b, size_t bytes) {
  unpoison(b.shared.data(), b.shared.size());
  b.shared.assign(std::max(bytes + 2 * 1024, b.shared.size()), '\x7f');
  poison(b.shared.data(), b.shared.size());
  unpoison(dynamic_shared(), bytes);
}

// Those of a kernel's blocks that are this worker's.
void run_blocks(Block& b, size_t worker, const dim3& grid, const dim3& size, size_t shared,
                const std::function<void()>& body) {
  running = &b;
  block_size = size;
  grid_size = grid;
  b.count = static_cast<int>(size.x * size.y * size.z);
  b.body = &body;
  const auto count = static_cast<size_t>(b.count), warps = (count + warp_lanes - 1) / warp_lanes;
  while (b.threads.size() < count) b.threads.emplace_back();
  while (b.warps.size() < warps) b.warps.emplace_back();
  b.slots.resize(warps * warp_lanes);
  for (size_t i = 0; i < size_t{grid.x} * grid.y * grid.z; ++i) {
    if (worker_of(i) != worker) continue;
    const auto number = static_cast<unsigned>(i);
    here.block = dim3(number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y);
    prepare_shared_memory(b, shared);
    run_block();
  }
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
  return reinterpret_cast<char*>(at / 1024 * 1024 + 1024);
}

void sync_block() { meet_in_order(block().all); }
void come_to_barrier(int name, int threads, bool waits) {
  check(name >= 1 && name <= 15 && threads > 0 && threads % warp_lanes == 0,
        "there is no barrier {} for {} threads", name, threads);
  Barrier& barrier = block().named[static_cast<size_t>(name)];
  check(barrier.waiting == 0 || barrier.alive == threads, "barrier {} is for {} threads and for {}", name,
        barrier.alive, threads);
  barrier.alive = threads;
  if (waits) return meet_in_order(barrier);
  come_to(barrier);
  if (barrier.waiting + 1 == threads)
    meet(barrier);
  else
    ++barrier.waiting;
}
void sync_warp() { meet_in_order(own_warp()); }
int lane() { return block().current % warp_lanes; }

// Lanes wait for one another, but that makes no order for what they do to memory.
void publish(const void* own, size_t bytes) {
  meet(own_warp());  // the values before have been read
  // No function of the library's, of which the thread sanitizer would be told.
  volatile char* const to = block().slots[static_cast<size_t>(block().current)].bytes;
  for (size_t i = 0; i < bytes; ++i) to[i] = static_cast<const char*>(own)[i];
  meet(own_warp());
}

const void* exchanged(int from) {
  return block().slots[static_cast<size_t>(block().current / warp_lanes * warp_lanes + from)].bytes;
}

void exchange(const void* own, size_t bytes, int from, void* result) {
  publish(own, bytes);
  std::memcpy(result, exchanged(from), bytes);
}

void check_aligned(const void* at, size_t bytes) {
  check(reinterpret_cast<uintptr_t>(at) % bytes == 0, "a kernel has an address that is no multiple of {}",
        bytes);
}

void begin_copy(std::function<void()> copy) { own_thread().copies.add(std::move(copy)); }
void commit_copies() { own_thread().copies.commit(); }
void wait_for_copies(int most) {
  while (own_thread().copies.has_more_than(most)) own_thread().copies.finish_one();
}

const Witness& reader(int group) { return own_warp().readers[static_cast<size_t>(group % Warp::most_groups)]; }

void begin_product(std::function<void()> product) {
  check(!own_thread().products.has_more_than(Warp::most_groups - 1),
        "more than {} groups of products are under way", Warp::most_groups);
  own_thread().products.add(std::move(product));
}
void commit_products() { own_thread().products.commit(); }
void wait_for_products(int most) {
  CudaThread& own = own_thread();
  while (own.products.has_more_than(most)) {
    const Witness& finished = reader(own.products.finished);
    own.products.finish_one();
    finished.instead([&] { come_before(&own.products); });  // what it has read may be written over now
  }
  come_after(&own.products);
}
void show_to_products() {
  block().shows = true;
  CudaThread& own = own_thread();
  come_before(&own);
  own_warp().shown.instead([&] { come_after(&own); });
}
void begin_to_read() {
  Warp& warp = own_warp();
  warp.seen.instead([&] { come_before(&warp); });
  reader(own_thread().products.open_group()).instead([&] { come_after(&warp); });
}
void product_reads([[maybe_unused]] const void* at, [[maybe_unused]] bool again) {
#ifdef LINNET_FIND_RACES
  const Beside& products = own_thread().products;
  reader(again ? products.finished : products.open_group()).instead([=] {
    __tsan_read4(const_cast<void*>(at));
  });
#endif
}

void run(const dim3& grid, const dim3& size, size_t shared, const std::function<void()>& body) {
  check(size.x * size.y * size.z >= 1 && size.x * size.y * size.z <= 1024 && grid.x > 0 && grid.y > 0 &&
            grid.z > 0 && grid.y < 65536 && grid.z < 65536 && shared <= most_shared(),
        "a kernel cannot run as {}x{}x{} blocks of {}x{}x{} threads with {} bytes of shared memory", grid.x,
        grid.y, grid.z, size.x, size.y, size.z, shared);
  thread_local std::array<Block, blocks_at_once> blocks;
  if constexpr (blocks_at_once == 1) return run_blocks(blocks[0], 0, grid, size, shared, body);
  std::vector<std::thread> workers;
  std::array<std::exception_ptr, blocks_at_once> problems;
  for (size_t i = 0; i < blocks_at_once; ++i)
    workers.emplace_back([&, i, own = &blocks[i]] {
      try {
        run_blocks(*own, i, grid, size, shared, body);
      } catch (...) {
        problems[i] = std::current_exception();
      }
    });
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& problem : problems)
    if (problem) std::rethrow_exception(problem);
}

}  // namespace linnet::cuda::emulation
