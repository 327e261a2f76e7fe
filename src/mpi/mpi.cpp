// MPI for processes that work together: the one function that the library offers, and the table behind it.
#include <mpi.h>

#include <algorithm>
#include <cstdio>

#include "core/mpi.h"

namespace linnet {
namespace {

// MPI counts in int, and larger messages are no faster.
constexpr size_t most_at_once = size_t{1} << 28;

template <class T, class Work>
void in_parts(T* values, size_t n, Work work) {
  for (size_t at = 0; at < n; at += most_at_once)
    work(values + at, static_cast<int>(std::min(n - at, most_at_once)));
}

void sum(float* values, size_t n) {
  in_parts(values, n, [](float* part, int count) {
    MPI_Allreduce(MPI_IN_PLACE, part, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  });
}

int64_t largest(int64_t value) {
  MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD);
  return value;
}

void spread(void* bytes, size_t n) {
  in_parts(static_cast<char*>(bytes), n,
           [](char* part, int count) { MPI_Bcast(part, count, MPI_BYTE, 0, MPI_COMM_WORLD); });
}

void end() { MPI_Finalize(); }
void abort_all(int exit_code) { MPI_Abort(MPI_COMM_WORLD, exit_code); }

}  // namespace
}  // namespace linnet

extern "C" __attribute__((visibility("default"))) bool linnet_open_mpi(linnet::MpiApi* api, char* problem,
                                                                       size_t room) {
  using namespace linnet;
  if (api->version != LINNET_MPI_INTERFACE) {
    std::snprintf(problem, room, "the library is of another version of Linnet");
    return false;
  }
  int given = MPI_THREAD_SINGLE;  // batches are made on another thread, which does not talk
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &given) != MPI_SUCCESS ||
      given < MPI_THREAD_FUNNELED) {
    std::snprintf(problem, room, "MPI could not be started beside threads");
    return false;
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &api->index);
  MPI_Comm_size(MPI_COMM_WORLD, &api->count);
  api->sum = sum;
  api->largest = largest;
  api->spread = spread;
  api->end = end;
  api->abort = abort_all;
  return true;
}
