#include "core/gpu.h"

#include <atomic>
#include <charconv>
#include <mutex>

#include "core/error.h"
#include "core/printable.h"
#include "core/shared_library.h"

namespace linnet {
namespace {

constexpr SharedLibrary library{"liblinnet_cuda.so", "LINNET_CUDA_LIBRARY", "linnet_open_gpu",
                                "no GPU can be used", "use the device \"cpu\""};

// Fills `api`, which says the version of the interface that the program knows, or writes why it cannot to
// `problem`.
using Entry = bool (*)(int index, GpuApi* api, char* problem, size_t room);

struct Opened {
  std::mutex mutex;
  Device device;
  GpuApi api{};
  std::atomic<bool> ready = false;  // set last: who sees it may read the rest without the mutex
};

// Never destroyed: tensors with static storage duration may outlive any static object.
Opened& opened() {
  static Opened* const instance = new Opened;
  return *instance;
}

}  // namespace

const GpuApi& open_gpu(const Device& device) {
  check(device.is_gpu(), "{} is no GPU", to_string(device));
  Opened& state = opened();
  const std::scoped_lock lock(state.mutex);
  if (state.ready) {
    check(state.device == device, "{} cannot be used: a process works on one GPU, and this one on {}",
          to_string(device), to_string(state.device));
    return state.api;
  }
  const auto entry = reinterpret_cast<Entry>(load(library));
  state.api.version = LINNET_GPU_INTERFACE;
  char problem[512] = "";
  check(entry(device.index, &state.api, problem, sizeof problem), "{} cannot be used: {}", to_string(device),
        problem);
  state.device = device;
  state.ready.store(true, std::memory_order_release);
  return state.api;
}

bool gpu_is_open() { return opened().ready.load(std::memory_order_acquire); }

const GpuApi& gpu() {
  check(gpu_is_open(), "no GPU is in use");
  return opened().api;
}

std::shared_ptr<void> allocate_on(const Device& device, size_t bytes) {
  if (!device.is_gpu()) return allocate(bytes);
  const GpuApi& api = open_gpu(device);
  const auto give = api.give;
  return {api.allocate(bytes), [give, bytes](void* block) { give(block, bytes); }};
}

Device device_from_name(std::string_view name) {
  constexpr std::string_view cuda = "cuda";
  if (name == "cpu") return {};
  Device result{Device::Kind::cuda, 0};
  if (name == cuda) return result;
  const auto wrong = [name] {
    return UsageError(fmt::format("a device is cpu, cuda or cuda:1 and so on, not \"{}\"", printable(name)));
  };
  if (!name.starts_with("cuda:")) throw wrong();
  const char *begin = name.data() + cuda.size() + 1, *end = name.data() + name.size();
  const auto [rest, problem] = std::from_chars(begin, end, result.index);
  if (problem != std::errc() || rest != end || result.index < 0) throw wrong();
  return result;
}

std::string to_string(const Device& device) {
  return device.is_gpu() ? fmt::format("cuda:{}", device.index) : "cpu";
}

}  // namespace linnet
