// The GPU, as a library of its own offers it (src/cuda), which is loaded when a GPU is first asked for: so that
// the program stays small, starts at once, and runs on machines without a driver. What crosses the boundary is
// plain memory, numbers and function pointers. A process works on one GPU. All work that is put to it runs in
// the order in which it was put there (one stream), so memory may be given back before it has been used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/device.h"
#include "core/dtype.h"
#include "core/memory.h"

namespace linnet {

namespace ops {
struct GpuKernels;
}

/// What a kernel sees of a tensor; null if there is none.
struct View {
  void* data = nullptr;
  DType dtype = DType::f32;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

struct GpuInfo {
  char name[256];
  int architecture;  ///< compute capability: 90 for 9.0
  int multiprocessors;
  size_t memory;  ///< bytes on the card
};

/// By which the cards of several processes find each other; the first makes one, which the others are told.
struct GpuTeamId {
  char bytes[128];
};

/// Functions of the library. They throw Error, and OutOfMemory with the numbers.
struct GpuApi {
  /// Of this interface, from the text of its headers (cmake/interfaces.cmake): a library of another is
  /// refused.
  unsigned version;
  GpuInfo info;

  void* (*allocate)(size_t bytes);
  void (*give)(void* block, size_t bytes);
  MemoryStats (*stats)();
  size_t (*available)();  ///< bytes that could still be allocated
  void (*reset_peak)();
  void (*release_cached)();
  /// No more than so many bytes from here on; 0: all that the card has.
  void (*limit)(size_t bytes);

  /// Memory of the CPU that the GPU reads by itself, null if there is no more: what upload() is given of it
  /// must never change.
  void* (*pin)(size_t bytes);
  void (*unpin)(void* memory);

  /// To the GPU; `from` may change as soon as this returns, unless it was pinned.
  void (*upload)(void* to, const void* from, size_t bytes);
  /// From the GPU, after everything that was put there before; waits.
  void (*download)(void* to, const void* from, size_t bytes);
  void (*copy)(void* to, const void* from, size_t bytes);
  void (*clear)(void* at, size_t bytes);
  void (*synchronize)();

  // The few kernels that tensors themselves need; the rest are ops/gpu_kernels.h.
  /// n values of a floating-point type in another one.
  void (*convert)(View from, View to, int64_t n);
  void (*fill)(View to, float value, int64_t n);
  /// sum = a + b of any floating-point types.
  void (*add)(View a, View b, View sum, int64_t n);

  /// What is put to the GPU between these is recorded and not done; null if that cannot be recorded. Blocks
  /// that were allocated meanwhile belong to the recording until it is dropped, and hold its results.
  void (*begin_recording)();
  void* (*end_recording)();
  void (*replay)(void* recording);
  void (*drop)(void* recording);

  /// Seconds that the GPU takes for what `work` puts there, by its own clock.
  double (*seconds)(void (*work)(void*), void* context);

  /// Whether the cards of several processes can add without the processors' help: by NCCL, if it is there.
  bool (*can_team_up)();
  void (*make_team_id)(GpuTeamId* id);
  /// All call it, each with a place of its own; returns when all have.
  void (*join_team)(const GpuTeamId* id, int index, int count);
  /// Of n blocks of f32 on the card each value becomes the sum over the processes, the same bits in all of
  /// them. All call it with blocks of the same sizes.
  void (*sum_over_team)(float* const* blocks, const size_t* sizes, size_t n);

  const ops::GpuKernels* kernels;
};

/// The GPU of that device; loads the library first. Throws Error saying what is missing: the library, a driver,
/// that many GPUs; or that another GPU is in use already.
const GpuApi& open_gpu(const Device& device);
/// Whether open_gpu() would find a GPU there, which this neither opens nor makes the process's.
bool has_gpu(const Device& device);
/// The one that has been opened. Throws Error if none has.
const GpuApi& gpu();
/// Whether one has been.
bool gpu_is_open();

/// A block of that device's memory; contents undefined. Throws OutOfMemory.
std::shared_ptr<void> allocate_on(const Device& device, size_t bytes);

}  // namespace linnet
