#include "core/mpi.h"

#include "core/error.h"
#include "core/processes.h"
#include "core/shared_library.h"

namespace linnet {
namespace {

constexpr SharedLibrary library{"liblinnet_mpi.so", "LINNET_MPI_LIBRARY", "linnet_open_mpi",
                                "several processes cannot work together", "start one alone"};

// Fills `api`, which says the version of the interface that the program knows, or writes why it cannot to
// `problem`.
using Entry = bool (*)(MpiApi* api, char* problem, size_t room);

}  // namespace

MpiApi open_mpi() {
  const auto entry = reinterpret_cast<Entry>(load(library));
  MpiApi api{};
  api.version = LINNET_MPI_INTERFACE;
  char problem[512] = "";
  check(entry(&api, problem, sizeof problem), "{}: {}", library.without, problem);
  const ProcessShare told = process_share();
  check(api.count == told.count,
        "the environment tells of {} processes, but MPI of {}: is Linnet built with the MPI whose mpirun that "
        "was (under srun: --mpi=pmix)? Or is a launcher's variable left over, such as SLURM_STEP_NUM_TASKS?",
        told.count, api.count);
  return api;
}

}  // namespace linnet
