// Several processes that share one work, as mpirun or Slurm starts them. They need not talk to know their
// places; those that must talk are a team (core/team.h).
#pragma once

#include <string>

namespace linnet {

struct ProcessShare {
  int index = 0, count = 1;
  int index_here = 0;  ///< among the processes of this machine
};

/// From what mpirun (Open MPI, MPICH, Intel MPI) or srun tells a process by its environment; one of one
/// without.
ProcessShare process_share();

/// "process 2 of 4: " before what one of several says, "" of one alone.
std::string which_process(const ProcessShare& share);

/// The device of that name for this process: of several that are to work on "cuda", the first of a machine has
/// its first card, the second its second, and one that sees a single card (CUDA_VISIBLE_DEVICES) has that.
std::string own_device(const std::string& name);

}  // namespace linnet
