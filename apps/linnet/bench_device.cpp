#include "bench_device.h"

#include <algorithm>
#include <bit>

namespace linnet::app {
namespace {

Device& chosen() {
  static Device device;
  return device;
}

// `each` for a multiprocessor, at most `most`; halved until `bytes_of` it leave the card's memory to the work.
template <class BytesOf>
int64_t for_card(const GpuInfo& card, int64_t each, int64_t most, BytesOf bytes_of) {
  const auto wanted = std::bit_ceil(static_cast<uint64_t>(each * std::max(card.multiprocessors, 1)));
  int64_t size = std::min(static_cast<int64_t>(wanted), most);
  while (size > each && bytes_of(size) > static_cast<int64_t>(card.memory / 16)) size /= 2;
  return size;
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

int64_t ceiling_side(const GpuInfo& card) {
  const auto three_matrices = [](int64_t side) {
    return 3 * side * side * static_cast<int64_t>(sizeof(float));
  };
  return for_card(card, 64, 8192, three_matrices);
}

int64_t ceiling_copy_bytes(const GpuInfo& card) {
  return for_card(card, int64_t{16} << 20, int64_t{2} << 30, [](int64_t bytes) { return bytes; });
}

}  // namespace linnet::app
