// Several processes that share one work, as mpirun starts them. They need not talk: each takes every n-th
// batch.
#pragma once

namespace linnet::app {

struct ProcessShare {
  int index = 0, count = 1;
};

/// From what mpirun (Open MPI, MPICH, Intel MPI) tells a process by its environment; one of one without.
ProcessShare process_share();

}  // namespace linnet::app
