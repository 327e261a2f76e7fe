#include "interrupt.h"

#include <unistd.h>

#include <csignal>
#include <initializer_list>

namespace linnet::app {
namespace {

volatile std::sig_atomic_t signal_seen = 0;

void end_at_once(int signal_number) { ::_exit(128 + signal_number); }

// The first process of a container is not ended by a signal, unless it does that itself.
bool is_first_process() { return ::getpid() == 1; }

void remember(int signal_number) {
  signal_seen = signal_number;
  std::signal(signal_number, is_first_process() ? end_at_once : SIG_DFL);
}

}  // namespace

void let_signals_end_us() {
  if (!is_first_process()) return;
  for (const int number : {SIGINT, SIGTERM, SIGHUP})
    if (std::signal(number, SIG_IGN) != SIG_IGN) std::signal(number, end_at_once);
}

void catch_interrupts() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU})
    if (std::signal(number, SIG_IGN) != SIG_IGN) std::signal(number, remember);
}

bool interrupted() { return signal_seen != 0; }

void end_if_interrupted() {
  if (signal_seen != 0) throw Interrupted{128 + signal_seen};
}

}  // namespace linnet::app
