// Processes that talk to each other by MPI, as a library of its own offers it (src/mpi), which is loaded when
// there are several: the program runs where there is no MPI. Whatever all must call, "collective" here, they
// call in the same order. Where MPI itself fails, it says so and ends all processes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace linnet {

struct MpiApi {
  /// Of this interface, from the text of this header (cmake/interfaces.cmake): a library of another is refused.
  unsigned version;
  int index, count;

  /// Collective: each value becomes the sum over all processes, the same bits in all of them.
  void (*sum)(float* values, size_t n);
  /// Collective: the largest that any process gave.
  int64_t (*largest)(int64_t value);
  /// Collective: the bytes of process 0.
  void (*spread)(void* bytes, size_t n);
  /// Collective, and the last call of all.
  void (*end)();
  /// Ends all processes.
  void (*abort)(int exit_code);
};

/// Loads the library, and begins to talk: collective. Throws Error if it is missing. Never more than once in a
/// process.
MpiApi open_mpi();

}  // namespace linnet
