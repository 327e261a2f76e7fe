// A "GPU" whose memory is this machine's and whose kernels run on it (emulation.h). Blocks come from the card's
// own pool; the address sanitizer watches them and what lies between. What is recorded is kept as functions,
// and called by every replay.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <unordered_set>
#include <vector>

#include <fmt/format.h>

#include <linnet/error.h>

#include "core/poison.h"
#include "cuda/device.h"
#include "cuda/emulation/emulation.h"
#include "cuda/library.h"
#include "cuda/pool.h"

namespace linnet::cuda {
namespace {

constexpr size_t memory = size_t{1} << 34;
size_t obtained = 0;

struct Recording {
  Pool* pool = nullptr;
  std::vector<std::function<void()>> work;
  std::unordered_set<void*> blocks;  // taken while it was made, and not given back meanwhile
  bool possible = true;
};

Recording* being_recorded = nullptr;

// As a card whose stream is captured: the recording is spoilt.
void check_not_recorded(const char* what) {
  if (being_recorded == nullptr) return;
  being_recorded->possible = false;
  fail(fmt::format("what is being recorded cannot be {} yet", what));
}

void drop(void* recording) {
  auto* const it = static_cast<Recording*>(recording);
  drop_pool(it->pool);
  delete it;
}

void begin_recording() {
  if (being_recorded != nullptr) fail("a recording has begun already");
  being_recorded = new Recording;
  being_recorded->pool = begin_pool();
}

void* end_recording() {
  Recording* const recording = std::exchange(being_recorded, nullptr);
  end_pool();
  if (recording->possible) return recording;
  drop(recording);
  return nullptr;
}

void replay(void* recording) {
  for (const auto& work : static_cast<Recording*>(recording)->work) emulation::put(work);
}

void copy(void* to, const void* from, size_t bytes) {
  emulation::put([=] { std::memmove(to, from, bytes); });
}

void download(void* to, const void* from, size_t bytes) {
  check_not_recorded("read");
  std::memcpy(to, from, bytes);
}

void clear(void* at, size_t bytes) {
  emulation::put([=] { std::memset(at, 0, bytes); });
}

double seconds(void (*work)(void*), void* context) {
  const auto begin = std::chrono::steady_clock::now();
  work(context);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

constexpr int nonsense = 0x7f;  // as bytes of a number, one that no kernel wants

void watch(void* block, size_t bytes) {
  unpoison(block, bytes);  // of a recording that was never replayed it is watched still
  std::memset(block, nonsense, bytes);
  poison(block, bytes);
}

// Of its type, so that the other branches of kernels and of the program can be tested.
int architecture() {
  const char* const wanted = std::getenv("LINNET_EMULATED_ARCHITECTURE");
  return wanted == nullptr ? 90 : std::atoi(wanted);
}

int cards() {
  const char* const wanted = std::getenv("LINNET_EMULATED_CARDS");
  return wanted == nullptr ? 1 : std::atoi(wanted);
}

}  // namespace

void emulation::put(std::function<void()> work) {
  if (being_recorded == nullptr) return work();
  being_recorded->work.push_back(std::move(work));
}

void wrong_type(DType dtype) { fail(fmt::format("the GPU has no kernel for {}", name_of(dtype))); }
void fail(const std::string& sentence) { throw Error(sentence); }
int multiprocessors() { return 2; }
int architecture_of_kernels() { return architecture(); }
bool has_group_products() { return architecture() == 90; }

void wait_for_stream() { check_not_recorded("waited for"); }
Room room() { return {memory - obtained, memory}; }

void* obtain_segment(size_t bytes) {
  constexpr size_t page = 4096;
  if (bytes > memory - obtained) return nullptr;
  void* const segment = std::aligned_alloc(page, (bytes + page - 1) / page * page);
  if (segment == nullptr) return nullptr;
  obtained += bytes;
  poison(segment, bytes);
  return segment;
}

void release_segment(void* segment, size_t bytes) {
  unpoison(segment, bytes);
  std::free(segment);
  obtained -= bytes;
}

void* allocate(size_t bytes) {
  void* const block = take_block(bytes);
  if (being_recorded != nullptr) being_recorded->blocks.insert(block);
  emulation::put([=] {
    unpoison(block, bytes);
    std::memset(block, nonsense, bytes);
  });
  return block;
}

// A block of the recording is free from here on in each replay, another one at once, though the recorded work
// may want to read it: that is a fault, and to be found.
void give(void* block, size_t bytes) {
  if (being_recorded != nullptr && being_recorded->blocks.erase(block) > 0)
    emulation::put([=] { watch(block, bytes); });
  else
    watch(block, bytes);
  give_block(block, bytes);
}

void upload(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;  // nothing may come from nowhere
  const auto* const values = static_cast<const char*>(from);
  emulation::put(
      [to, kept = std::vector<char>(values, values + bytes)] { std::memcpy(to, kept.data(), kept.size()); });
}

bool has_device(int index) { return index < cards(); }

void open_device(int index, GpuApi& api) {
  check_card(index, cards());
  std::strcpy(api.info.name, "emulated GPU");
  api.info.architecture = architecture();
  api.info.multiprocessors = multiprocessors();
  api.info.memory = memory;
  api.allocate = allocate;
  api.give = give;
  api.stats = pool_stats;
  api.available = pool_available;
  api.reset_peak = reset_pool_peak;
  api.release_cached = release_cached_blocks;
  api.limit = limit_pools;
  api.pin = [](size_t bytes) { return std::malloc(bytes); };
  api.unpin = std::free;
  api.upload = upload;
  api.download = download;
  api.copy = copy;
  api.clear = clear;
  api.synchronize = wait_for_stream;
  api.begin_recording = begin_recording;
  api.end_recording = end_recording;
  api.replay = replay;
  api.drop = drop;
  api.seconds = seconds;
}

}  // namespace linnet::cuda
