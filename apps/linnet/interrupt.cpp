#include "interrupt.h"

#include <csignal>

namespace linnet::app {
namespace {

volatile std::sig_atomic_t signal_seen = 0;

void remember(int signal_number) {
  signal_seen = signal_number;
  std::signal(signal_number, SIG_DFL);
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, remember);
  std::signal(SIGTERM, remember);
}

bool interrupted() { return signal_seen != 0; }

void end_if_interrupted() {
  if (signal_seen != 0) throw Interrupted{128 + signal_seen};
}

}  // namespace linnet::app
