#include "core/gpu.h"

#include <dlfcn.h>

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "core/printable.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr const char* library_name = "liblinnet_cuda.so";
constexpr const char* entry_name = "linnet_open_gpu";
constexpr const char* path_variable = "LINNET_CUDA_LIBRARY";

// Fills `api`, which says the version of the interface that the program knows, or writes why it cannot to
// `problem`.
using Entry = bool (*)(int index, GpuApi* api, char* problem, size_t room);

// Beside the program, where an installation keeps libraries, or where the system looks.
std::vector<fs::path> places() {
  if (const char* given = std::getenv(path_variable); given && *given) return {given};
  std::vector<fs::path> result;
  std::error_code problem;
  if (const fs::path program = fs::read_symlink("/proc/self/exe", problem); !problem) {
    const fs::path folder = program.parent_path();
    for (const char* place : {".", "../lib", "../lib/linnet", ".."})
      result.push_back((folder / place / library_name).lexically_normal());
  }
  result.emplace_back(library_name);
  return result;
}

void* load_library() {
  const char* const given = std::getenv(path_variable);
  std::string problems =
      given && *given ? fmt::format("there is no {}", printable(given)) : "it is not where it was looked for";
  for (const fs::path& path : places()) {
    std::error_code ignored;
    if (path.has_parent_path() && !fs::exists(path, ignored)) continue;
    if (void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    problems = printable(dlerror(), 1000);
  }
  fail(
      "no GPU can be used: Linnet's library for it, {}, could not be loaded ({}); set {} to its path, or use "
      "--device cpu",
      library_name, problems, path_variable);
}

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
  void* const library = load_library();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, entry_name));
  check(entry != nullptr, "{} is not a library of Linnet's: it has no {}", library_name, entry_name);
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
