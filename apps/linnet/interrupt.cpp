#include "interrupt.h"

#include <csignal>
#include <initializer_list>

namespace linnet::app {
namespace {

volatile std::sig_atomic_t signal_seen = 0;

void remember(int signal_number) {
  signal_seen = signal_number;
  std::signal(signal_number, SIG_DFL);
}

}  // namespace

void catch_interrupts() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU})
    if (std::signal(number, SIG_IGN) != SIG_IGN) std::signal(number, remember);
}

bool interrupted() { return signal_seen != 0; }

void end_if_interrupted() {
  if (signal_seen != 0) throw Interrupted{128 + signal_seen};
}

}  // namespace linnet::app
