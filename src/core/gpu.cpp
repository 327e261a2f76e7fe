#include "core/gpu.h"

#include <atomic>
#include <charconv>
#include <mutex>

#include "core/error.h"
#include "core/printable.h"
#include "core/shared_library.h"

namespace linnet {
namespace {

constexpr SharedLibrary library_of(const char* entry) {
  return {"liblinnet_cuda.so", "LINNET_CUDA_LIBRARY", entry, "no GPU can be used", "use the device \"cpu\""};
}

// Fills `api`, which says the version of the interface that the program knows, or writes why it cannot to
// `problem`.
using Open = bool (*)(int index, GpuApi* api, char* problem, size_t room);
// Whether the first would not, without taking hold of the card.
using Has = bool (*)(int index, unsigned version);

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
  const auto open = reinterpret_cast<Open>(load(library_of("linnet_open_gpu")));
  state.api.version = LINNET_GPU_INTERFACE;
  char problem[512] = "";
  check(open(device.index, &state.api, problem, sizeof problem), "{} cannot be used: {}", to_string(device),
        problem);
  state.device = device;
  state.ready.store(true, std::memory_order_release);
  return state.api;
}

bool has_gpu(const Device& device) {
  Opened& state = opened();
  const std::scoped_lock lock(state.mutex);
  if (state.ready) return state.device == device;
  try {
    return reinterpret_cast<Has>(load(library_of("linnet_has_gpu")))(device.index, LINNET_GPU_INTERFACE);
  } catch (const Error&) {
    return false;  // there is no library
  }
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
