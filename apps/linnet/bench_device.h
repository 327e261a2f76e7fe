// Where a benchmark works: on the CPU, or on a GPU, whose work is timed by its own clock.
#pragma once

#include "core/device.h"
#include "core/memory.h"

namespace linnet::app {

/// Opens it, too.
void set_bench_device(const Device& device);
const Device& bench_device();

/// Of that device.
MemoryStats bench_memory();
void reset_bench_peak();

}  // namespace linnet::app
