// The card that this library works on, for its own kernels: the stream, working memory, errors. Implemented by
// device.cpp, and by emulation/device.cpp on a CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#ifndef LINNET_CUDA_EMULATED
#include <cuda_runtime_api.h>
#endif

#include "core/gpu.h"

namespace linnet::cuda {

[[noreturn]] void wrong_type(DType dtype);
[[noreturn]] void fail(const std::string& sentence);
int multiprocessors();
/// Its compute capability: 90 for 9.0.
int architecture_of_card();

#ifndef LINNET_CUDA_EMULATED
cudaStream_t stream();
/// Throws Error unless a call went well; `doing` completes "… failed while".
void must(cudaError_t result, const char* doing);
#endif

void* allocate(size_t bytes);
void give(void* block, size_t bytes);
void upload(void* to, const void* from, size_t bytes);

/// Working memory of a kernel, given back (in the stream's order) at the end of the scope.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : bytes_(bytes), block_(allocate(bytes)) {}
  ~Scratch() { give(block_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(block_);
  }

 private:
  size_t bytes_;
  void* block_;
};

/// A few numbers of the CPU for a kernel.
template <class T>
class Uploaded {
 public:
  Uploaded(const T* values, size_t count) : memory_(count * sizeof(T)) {
    upload(memory_.as<void>(), values, count * sizeof(T));
  }
  const T* get() const { return memory_.template as<T>(); }

 private:
  Scratch memory_;
};

}  // namespace linnet::cuda
