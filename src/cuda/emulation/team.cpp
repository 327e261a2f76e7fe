// What NCCL offers, for processes of this machine: each lays its values into shared memory and adds those of
// all, in the order of the processes.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "cuda/device.h"
#include "cuda/emulation/emulation.h"
#include "cuda/library.h"

namespace linnet::cuda {
namespace {

constexpr size_t most_processes = 8, at_once = size_t{1} << 14;

struct Shared {
  std::atomic<int> arrived, round;
  float values[most_processes][at_once];
};

struct Place {
  Shared* shared = nullptr;
  int index = 0, count = 1;

  void meet() const {
    const int round = shared->round.load();
    if (shared->arrived.fetch_add(1) + 1 == count) {
      shared->arrived.store(0);
      shared->round.store(round + 1);
    }
    while (shared->round.load() == round) sched_yield();
  }
};

Place place;

Shared* map(const char* name, int flags) {
  const int file = shm_open(name, flags, 0600);
  if (file < 0 || ftruncate(file, sizeof(Shared)) != 0) fail("no shared memory for the team of emulated GPUs");
  void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) fail("no shared memory for the team of emulated GPUs");
  return static_cast<Shared*>(memory);
}

void make_team_id(GpuTeamId* id) {
  std::snprintf(id->bytes, sizeof id->bytes, "/linnet-emulated-team-%d", static_cast<int>(getpid()));
  munmap(map(id->bytes, O_RDWR | O_CREAT | O_EXCL), sizeof(Shared));  // zeros are what it begins with
}

void join_team(const GpuTeamId* id, int index, int count) {
  if (count > static_cast<int>(most_processes)) fail("a team of emulated GPUs has no more than 8");
  place = {map(id->bytes, O_RDWR), index, count};
  place.meet();
  if (index == 0) shm_unlink(id->bytes);
}

void add(float* values, size_t n) {
  std::copy_n(values, n, place.shared->values[place.index]);
  place.meet();
  for (size_t i = 0; i < n; ++i) {
    float sum = 0.0f;
    for (int p = 0; p < place.count; ++p) sum += place.shared->values[p][i];
    values[i] = sum;
  }
  place.meet();
}

void sum_over_team(float* const* blocks, const size_t* sizes, size_t n) {
  for (size_t i = 0; i < n; ++i)
    for (size_t at = 0; at < sizes[i]; at += at_once) add(blocks[i] + at, std::min(at_once, sizes[i] - at));
}

// So that both ways of adding can be tested.
bool can_team_up() { return std::getenv("LINNET_EMULATED_WITHOUT_NCCL") == nullptr; }

}  // namespace

void fill_team(GpuApi& api) {
  api.can_team_up = can_team_up;
  api.make_team_id = make_team_id;
  api.join_team = join_team;
  api.sum_over_team = sum_over_team;
}

}  // namespace linnet::cuda
