// Where a benchmark works: on the CPU, or on a GPU, whose work is timed by its own clock.
#pragma once

#include "core/device.h"
#include "core/gpu.h"
#include "core/memory.h"

namespace linnet::app {

/// Opens it, too.
void set_bench_device(const Device& device);
const Device& bench_device();

/// Of that device.
MemoryStats bench_memory();
void reset_bench_peak();

/// What is large enough to show the most that a GPU does, and leaves it room for the work: as much as keeps all
/// its multiprocessors busy, at most what the largest cards need, and within 1/16 of its memory. The side of
/// square matrices to multiply, up to 8192, and the bytes to copy, up to 2 GiB; powers of two.
int64_t ceiling_side(const GpuInfo& card);
int64_t ceiling_copy_bytes(const GpuInfo& card);

}  // namespace linnet::app
