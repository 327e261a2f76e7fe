// Ctrl-C, politely: work ends at its next good moment, not in the middle of a file.
#pragma once

namespace linnet::app {

/// From now on SIGINT, SIGTERM and SIGHUP end the program wherever it runs: in a container, too, as its first
/// process. At the program's beginning.
void let_signals_end_us();

/// From now on the first SIGINT, SIGTERM, SIGHUP (a terminal that closes), SIGUSR1 (which Slurm and mpirun pass
/// on without killing soon after), SIGUSR2 or SIGXCPU (Grid Engine's warnings) is only remembered; the second
/// of its kind ends the program as usual. What whoever started it ignores, as a shell does of Ctrl-C for what
/// runs in its background, stays ignored.
void catch_interrupts();
bool interrupted();

/// Thrown to end a verb because of the signal; not an error, so no std::exception.
struct Interrupted {
  int exit_code;  ///< 128 + the signal's number, as a shell reports it: 130 for Ctrl-C
};
/// Throws Interrupted if a signal came.
void end_if_interrupted();

}  // namespace linnet::app
