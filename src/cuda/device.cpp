// The card: its stream, errors, copies through pinned memory, time. Memory: cuda/pool.h.
#include "cuda/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <linnet/error.h>

#include "cuda/library.h"
#include "cuda/pool.h"

namespace linnet::cuda {
namespace {

struct Card {
  int index = 0;
  cudaStream_t stream = nullptr;
  cudaDeviceProp properties{};
};

// Never destroyed: tensors with static storage duration may outlive any static object.
Card& card() {
  static Card* const instance = new Card;
  return *instance;
}

// From pinned memory.
void upload_by_itself(void* to, const void* from, size_t bytes) {
  must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream()), "copying to it");
}

// What is to be uploaded goes through a ring of pinned buffers, so that the caller's memory is free at once and
// the copy runs beside what the CPU does next. A buffer is filled again when the copies out of it are done. As
// long as they are not, the ring grows: a step of training puts its batch there while the step before still
// runs.
class Staging {
 public:
  void upload(void* to, const void* from, size_t bytes) {
    const std::scoped_lock lock(mutex_);
    while (bytes > 0) {
      if (used_ >= buffer_bytes) turn();
      const size_t part = std::min(bytes, buffer_bytes - used_);
      char* const staged = ring_.back().memory + used_;
      std::memcpy(staged, from, part);
      upload_by_itself(to, staged, part);
      used_ += (part + alignment - 1) / alignment * alignment;
      to = static_cast<char*>(to) + part;
      from = static_cast<const char*>(from) + part;
      bytes -= part;
    }
  }

 private:
  static constexpr size_t most_buffers = 32, buffer_bytes = size_t{16} << 20, alignment = 256;

  struct Buffer {
    char* memory = nullptr;
    cudaEvent_t done = nullptr;
  };

  void turn() {
    if (!ring_.empty()) must(cudaEventRecord(ring_.back().done, stream()), "marking a copy");
    if (!grow()) {
      must(cudaEventSynchronize(ring_.front().done), "copying to it");
      ring_.push_back(ring_.front());
      ring_.pop_front();
    }
    used_ = 0;
  }

  // By a buffer, if the oldest is still in use and there may be more.
  bool grow() {
    const bool wanted = ring_.empty() || (ring_.size() < most_buffers &&
                                          cudaEventQuery(ring_.front().done) == cudaErrorNotReady);
    if (!wanted) return false;
    stream();  // so that this thread is on the card
    Buffer buffer;
    const cudaError_t result =
        cudaHostAlloc(reinterpret_cast<void**>(&buffer.memory), buffer_bytes, cudaHostAllocDefault);
    if (result != cudaSuccess && !ring_.empty()) {
      cudaGetLastError();  // it is dealt with
      return false;
    }
    must(result, "asking for pinned memory");
    must(cudaEventCreateWithFlags(&buffer.done, cudaEventDisableTiming), "making an event");
    ring_.push_back(buffer);
    return true;
  }

  std::mutex mutex_;
  std::deque<Buffer> ring_;     // the last is being filled, the first holds the oldest copies
  size_t used_ = buffer_bytes;  // of the last; as if full, so that the first comes with the first upload
};

Staging& staging() {
  static Staging* const instance = new Staging;
  return *instance;
}

// What uploads need no staging for, by its first byte.
struct Pinned {
  std::mutex mutex;
  std::map<uintptr_t, size_t> blocks;
};

Pinned& pinned() {
  static Pinned* const instance = new Pinned;
  return *instance;
}

void* pin(size_t bytes) {
  void* memory = nullptr;
  stream();  // so that this thread is on the card
  if (cudaHostAlloc(&memory, bytes, cudaHostAllocDefault) != cudaSuccess) {
    cudaGetLastError();  // it is dealt with
    return nullptr;
  }
  const std::scoped_lock lock(pinned().mutex);
  pinned().blocks.emplace(reinterpret_cast<uintptr_t>(memory), bytes);
  return memory;
}

void unpin(void* memory) {
  cudaStreamSynchronize(stream());  // copies of it may be under way
  {
    const std::scoped_lock lock(pinned().mutex);
    pinned().blocks.erase(reinterpret_cast<uintptr_t>(memory));
  }
  cudaFreeHost(memory);
}

bool is_pinned(const void* memory, size_t bytes) {
  const std::scoped_lock lock(pinned().mutex);
  const auto at = reinterpret_cast<uintptr_t>(memory);
  const auto after = pinned().blocks.upper_bound(at);
  if (after == pinned().blocks.begin()) return false;
  const auto& [begin, size] = *std::prev(after);
  return at + bytes <= begin + size;
}

// A sequence of kernels that was recorded, with what it reads and writes.
struct Recording {
  cudaGraphExec_t graph = nullptr;
  Pool* pool = nullptr;
  std::vector<void*> constants;  // pinned: what was uploaded meanwhile is uploaded again by every replay
};

Recording* being_recorded = nullptr;

void drop(void* recording) {
  auto* const it = static_cast<Recording*>(recording);
  cudaStreamSynchronize(stream());
  if (it->graph != nullptr) cudaGraphExecDestroy(it->graph);
  for (void* const constant : it->constants) cudaFreeHost(constant);
  drop_pool(it->pool);
  delete it;
}

void begin_recording() {
  if (being_recorded != nullptr) fail("a recording has begun already");
  being_recorded = new Recording;
  being_recorded->pool = begin_pool();
  const cudaError_t begun = cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed);
  if (begun == cudaSuccess) return;
  Recording* const none = std::exchange(being_recorded, nullptr);
  end_pool();
  drop(none);
  must(begun, "recording");
}

void* end_recording() {
  Recording* const recording = being_recorded;
  being_recorded = nullptr;
  end_pool();
  cudaGraph_t graph = nullptr;
  bool recorded = cudaStreamEndCapture(stream(), &graph) == cudaSuccess && graph != nullptr;
  if (recorded) recorded = cudaGraphInstantiate(&recording->graph, graph, 0) == cudaSuccess;
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (recorded) return recording;
  cudaGetLastError();  // it is dealt with
  recording->graph = nullptr;
  drop(recording);
  return nullptr;
}

void replay(void* recording) {
  must(cudaGraphLaunch(static_cast<Recording*>(recording)->graph, stream()), "replaying");
}

void download(void* to, const void* from, size_t bytes) {
  if (being_recorded != nullptr) fail("what is being recorded cannot be read yet");
  must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream()), "copying from it");
  wait_for_stream();
}

void copy(void* to, const void* from, size_t bytes) {
  must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()), "copying on it");
}

void clear(void* at, size_t bytes) { must(cudaMemsetAsync(at, 0, bytes, stream()), "clearing memory"); }

double seconds(void (*work)(void*), void* context) {
  cudaEvent_t begin = nullptr, end = nullptr;
  must(cudaEventCreate(&begin), "making an event");
  must(cudaEventCreate(&end), "making an event");
  must(cudaEventRecord(begin, stream()), "marking a time");
  work(context);
  must(cudaEventRecord(end, stream()), "marking a time");
  must(cudaEventSynchronize(end), "waiting for it");
  float milliseconds = 0;
  must(cudaEventElapsedTime(&milliseconds, begin, end), "reading a time");
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return static_cast<double>(milliseconds) / 1000;
}

void open_card(int index) {
  int count = 0;
  if (const cudaError_t result = cudaGetDeviceCount(&count); result != cudaSuccess)
    fail(fmt::format("the driver offers no GPU ({})", cudaGetErrorString(result)));
  check_card(index, count);
  Card& it = card();
  it.index = index;
  must(cudaSetDevice(index), "opening it");
  must(cudaGetDeviceProperties(&it.properties, index), "asking for its properties");
  if (10 * it.properties.major + it.properties.minor < least_architecture)
    fail(fmt::format("{} has compute capability {}.{}, and {}.{} is the least", it.properties.name,
                     it.properties.major, it.properties.minor, least_architecture / 10,
                     least_architecture % 10));
  must(cudaStreamCreateWithFlags(&it.stream, cudaStreamNonBlocking), "making a stream");
}

}  // namespace

void wrong_type(DType dtype) { fail(fmt::format("the GPU has no kernel for {}", name_of(dtype))); }
void fail(const std::string& sentence) { throw Error(sentence); }
int multiprocessors() { return card().properties.multiProcessorCount; }
int architecture_of_card() { return 10 * card().properties.major + card().properties.minor; }

// Which card a thread works on, the runtime keeps for each thread. It is told each time, which costs next to
// nothing, as the program around this may have told it otherwise.
cudaStream_t stream() {
  must(cudaSetDevice(card().index), "opening it");
  return card().stream;
}

void must(cudaError_t result, const char* doing) {
  if (result != cudaSuccess)
    fail(fmt::format("the GPU failed while {}: {}", doing, cudaGetErrorString(result)));
}

void wait_for_stream() { must(cudaStreamSynchronize(stream()), "waiting for it"); }

Room room() {
  Room result{};
  stream();  // so that this thread is on the card
  must(cudaMemGetInfo(&result.free, &result.total), "asking for its memory");
  return result;
}

void* obtain_segment(size_t bytes) {
  void* segment = nullptr;
  stream();
  if (cudaMalloc(&segment, bytes) == cudaSuccess) return segment;
  cudaGetLastError();  // it is dealt with
  return nullptr;
}

void release_segment(void* segment, size_t) { cudaFree(segment); }

void* allocate(size_t bytes) { return take_block(bytes); }
void give(void* block, size_t bytes) { give_block(block, bytes); }

void upload(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (is_pinned(from, bytes)) return upload_by_itself(to, from, bytes);
  if (being_recorded == nullptr) return staging().upload(to, from, bytes);
  void* constant = nullptr;
  must(cudaHostAlloc(&constant, bytes, cudaHostAllocDefault), "asking for pinned memory");
  being_recorded->constants.push_back(constant);
  std::memcpy(constant, from, bytes);
  upload_by_itself(to, constant, bytes);
}

bool has_device(int index) {
  int count = 0, major = 0, minor = 0;
  const auto asked = [index](int& value, cudaDeviceAttr attribute) {
    return cudaDeviceGetAttribute(&value, attribute, index) == cudaSuccess;
  };
  const bool there = cudaGetDeviceCount(&count) == cudaSuccess && index < count &&
                     asked(major, cudaDevAttrComputeCapabilityMajor) &&
                     asked(minor, cudaDevAttrComputeCapabilityMinor);
  cudaGetLastError();  // it is dealt with
  return there && 10 * major + minor >= least_architecture;
}

void open_device(int index, GpuApi& api) {
  open_card(index);
  const cudaDeviceProp& properties = card().properties;
  std::snprintf(api.info.name, sizeof api.info.name, "%s", properties.name);
  api.info.architecture = 10 * properties.major + properties.minor;
  api.info.multiprocessors = properties.multiProcessorCount;
  api.info.memory = properties.totalGlobalMem;
  api.allocate = allocate;
  api.give = give;
  api.stats = pool_stats;
  api.available = pool_available;
  api.reset_peak = reset_pool_peak;
  api.release_cached = release_cached_blocks;
  api.limit = limit_pools;
  api.pin = pin;
  api.unpin = unpin;
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
