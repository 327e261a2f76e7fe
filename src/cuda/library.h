// Between the library's entry and the device that it opens.
#pragma once

#include <string>

#include "core/gpu.h"
#include "cuda/device.h"

namespace linnet::cuda {

/// Takes hold of the index-th card and fills in what the device offers: memory, copies, recordings, time.
/// Throws Error saying why it cannot be used.
void open_device(int index, GpuApi& api);
/// Whether it could, for which no card is taken hold of.
bool has_device(int index);
/// The least compute capability that kernels are for.
constexpr int least_architecture = 75;
/// Throws Error unless `index` is one of so many cards.
inline void check_card(int index, int count) {
  if (index < count) return;
  fail(count == 1 ? "the only GPU of this machine is cuda:0"
                  : "the GPUs of this machine are cuda:0 to cuda:" + std::to_string(count - 1));
}
/// Fills in how the cards of several processes add.
void fill_team(GpuApi& api);

}  // namespace linnet::cuda
