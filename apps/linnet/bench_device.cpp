#include "bench_device.h"

#include "core/gpu.h"

namespace linnet::app {
namespace {

Device& chosen() {
  static Device device;
  return device;
}

}  // namespace

void set_bench_device(const Device& device) {
  if (device.is_gpu()) open_gpu(device);
  chosen() = device;
}

const Device& bench_device() { return chosen(); }

MemoryStats bench_memory() { return chosen().is_gpu() ? gpu().stats() : memory_stats(); }

void reset_bench_peak() {
  if (chosen().is_gpu())
    gpu().reset_peak();
  else
    reset_peak_memory();
}

}  // namespace linnet::app
