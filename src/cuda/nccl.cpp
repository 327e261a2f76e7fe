// Adding over the cards of several processes by NCCL, which is loaded when they are to: a process alone does
// without, and so does a library that was built without its header.
#include "cuda/library.h"

#if __has_include(<nccl.h>)

#include <dlfcn.h>
#include <nccl.h>

#include <cstring>
#include <string>

#include "cuda/device.h"
#include "cuda/pool.h"

namespace linnet::cuda {
namespace {

static_assert(sizeof(ncclUniqueId) == sizeof(GpuTeamId));

void* library() {
  static void* const opened = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  return opened;
}

// The functions of the library that are used here.
struct Nccl {
#define LINNET_NCCL(name) decltype(&::name) name = find<decltype(&::name)>(#name)
  LINNET_NCCL(ncclGetErrorString);
  LINNET_NCCL(ncclGetUniqueId);
  LINNET_NCCL(ncclCommInitRank);
  LINNET_NCCL(ncclGroupStart);
  LINNET_NCCL(ncclGroupEnd);
  LINNET_NCCL(ncclAllReduce);
#undef LINNET_NCCL

 private:
  template <class Function>
  static Function find(const char* name) {
    void* const found = dlsym(library(), name);
    if (found == nullptr) fail(std::string("this NCCL has no ") + name);
    return reinterpret_cast<Function>(found);
  }
};

const Nccl& nccl() {
  static const Nccl instance;
  return instance;
}

void must(ncclResult_t result, const char* doing) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  std::string sentence = std::string("NCCL failed while ") + doing + ": " + nccl().ncclGetErrorString(result);
  if (result == ncclInvalidUsage) sentence += " (has each process a card of its own?)";
  fail(sentence);
}

ncclComm_t communicator = nullptr;

bool can_team_up() { return library() != nullptr; }

void make_team_id(GpuTeamId* id) {
  ncclUniqueId own;
  must(nccl().ncclGetUniqueId(&own), "being started");
  std::memcpy(id, &own, sizeof own);
}

// As one group: a kernel or a few for all of them.
void sum_over_team(float* const* blocks, const size_t* sizes, size_t n) {
  const char* const doing = "adding over the processes";
  must(nccl().ncclGroupStart(), doing);
  for (size_t i = 0; i < n; ++i)
    must(nccl().ncclAllReduce(blocks[i], blocks[i], sizes[i], ncclFloat, ncclSum, communicator, stream()),
         doing);
  must(nccl().ncclGroupEnd(), doing);
}

// NCCL takes memory of the card when it first adds little, and when it first adds much: before the pool has it
// all.
void take_its_memory() {
  constexpr size_t much = size_t{16} << 20;  // values
  const Scratch values(much * sizeof(float));
  cuda::must(cudaMemsetAsync(values.as<void>(), 0, much * sizeof(float), stream()), "clearing memory");
  for (const size_t n : {size_t{1}, much}) {
    float* const block = values.as<float>();
    sum_over_team(&block, &n, 1);
  }
  wait_for_stream();
}

void join_team(const GpuTeamId* id, int index, int count) {
  ncclUniqueId shared;
  std::memcpy(&shared, id, sizeof shared);
  stream();  // so that this thread is on the card
  must(nccl().ncclCommInitRank(&communicator, count, shared, index), "the processes looked for each other");
  take_its_memory();
}

}  // namespace

void fill_team(GpuApi& api) {
  api.can_team_up = can_team_up;
  api.make_team_id = make_team_id;
  api.join_team = join_team;
  api.sum_over_team = sum_over_team;
}

}  // namespace linnet::cuda

#else

namespace linnet::cuda {

void fill_team(GpuApi& api) {
  api.can_team_up = [] { return false; };
}

}  // namespace linnet::cuda

#endif
