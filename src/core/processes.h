// Several processes that share one work, as mpirun or Slurm starts them. They need not talk to know their
// places; those that must talk are a team (core/team.h).
#pragma once

namespace linnet {

struct ProcessShare {
  int index = 0, count = 1;
};

/// From what mpirun (Open MPI, MPICH, Intel MPI) or srun tells a process by its environment; one of one
/// without.
ProcessShare process_share();

}  // namespace linnet
