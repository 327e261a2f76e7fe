// A "GPU" whose memory is this machine's and whose kernels run on it (emulation.h).
#include <chrono>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

#include <linnet/error.h>

#include "cuda/device.h"
#include "cuda/library.h"

namespace linnet::cuda {
namespace {

MemoryStats stats{};
size_t most = 0;  // 0: any number

void download(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
void clear(void* at, size_t bytes) { std::memset(at, 0, bytes); }
void nothing() {}

size_t available() {
  const size_t all = most > 0 ? most : size_t{1} << 34;
  return all > stats.in_use ? all - stats.in_use : 0;
}

double seconds(void (*work)(void*), void* context) {
  const auto begin = std::chrono::steady_clock::now();
  work(context);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

void wrong_type(DType dtype) { fail(fmt::format("the GPU has no kernel for {}", name_of(dtype))); }
void fail(const std::string& sentence) { throw Error(sentence); }
int multiprocessors() { return 2; }

// From malloc, so that the address sanitizer sees every byte beside it.
void* allocate(size_t bytes) {
  if (bytes > available())
    throw OutOfMemory(
        fmt::format("the GPU is out of memory: {} more bytes wanted, {} in use", bytes, stats.in_use));
  void* const block = std::malloc(bytes + (bytes == 0));
  if (block == nullptr) throw OutOfMemory(fmt::format("out of memory: {} more bytes wanted", bytes));
  std::memset(block, 0x7f, bytes);  // not a number that any kernel wants
  stats.in_use += bytes;
  stats.peak = stats.in_use > stats.peak ? stats.in_use : stats.peak;
  return block;
}

void give(void* block, size_t bytes) {
  stats.in_use -= bytes;
  std::free(block);
}

void upload(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);  // nothing may come from nowhere
}

void open_device(int index, GpuApi& api) {
  if (index != 0) fail(fmt::format("there is no GPU {}: emulated is one", index));
  std::strcpy(api.info.name, "emulated GPU");
  api.info.architecture = 90;
  api.info.multiprocessors = multiprocessors();
  api.info.memory = size_t{1} << 34;
  api.allocate = allocate;
  api.give = give;
  api.stats = [] { return stats; };
  api.available = available;
  api.reset_peak = [] { stats.peak = stats.in_use; };
  api.release_cached = nothing;
  api.limit = [](size_t bytes) { most = bytes; };
  api.upload = upload;
  api.download = download;
  api.copy = [](void* to, const void* from, size_t bytes) { std::memmove(to, from, bytes); };
  api.clear = clear;
  api.synchronize = nothing;
  // It has nothing to gain from recordings, and says so.
  api.begin_recording = nothing;
  api.end_recording = []() -> void* { return nullptr; };
  api.replay = [](void*) {};
  api.drop = [](void*) {};
  api.seconds = seconds;
}

}  // namespace linnet::cuda
