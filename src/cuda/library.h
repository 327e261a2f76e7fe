// Between the library's entry and the device that it opens.
#pragma once

#include "core/gpu.h"

namespace linnet::cuda {

/// Takes hold of the index-th card and fills in what the device offers: memory, copies, recordings, time.
/// Throws Error saying why it cannot be used.
void open_device(int index, GpuApi& api);
/// Fills in how the cards of several processes add.
void fill_team(GpuApi& api);

}  // namespace linnet::cuda
