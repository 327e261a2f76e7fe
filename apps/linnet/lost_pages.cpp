#include "lost_pages.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <string>

#include "core/processes.h"
#include "io/descriptor.h"
#include "terminal.h"

namespace linnet::app {
namespace {

// All of this runs within a signal's handler: without memory from the heap, locks or streams.

// What the sentence begins with, which is made beforehand.
std::string* beginning = nullptr;

// The system's list of what is mapped where, line by line: "7f00-7f80 r--p 00001000 08:01 42    /a/model".
class Mappings {
 public:
  bool next() {
    length_ = 0;
    for (;;) {
      if (at_ == filled_) {
        const ssize_t count = ::read(list_.get(), block_, sizeof block_);
        if (count <= 0) return false;
        at_ = 0;
        filled_ = static_cast<size_t>(count);
      }
      const char c = block_[at_++];
      if (c == '\n') break;
      if (length_ + 1 < sizeof line_) line_[length_++] = c;
    }
    line_[length_] = '\0';
    rest_ = line_;
    begin = number();
    ++rest_;  // the dash
    end = number();
    ++rest_;
    is_read_only_file = std::strncmp(rest_, "r--p ", 5) == 0;
    rest_ += std::strcspn(rest_, " ");
    rest_ += std::strspn(rest_, " ");
    offset = number();
    path = std::strchr(rest_, '/');
    is_read_only_file = is_read_only_file && path;
    return true;
  }

  uint64_t begin = 0, end = 0, offset = 0;
  bool is_read_only_file = false;
  char* path = nullptr;  // if it is a file

 private:
  uint64_t number() {
    uint64_t value = 0;
    for (;; ++rest_) {
      if (*rest_ >= '0' && *rest_ <= '9')
        value = value * 16 + static_cast<uint64_t>(*rest_ - '0');
      else if (*rest_ >= 'a' && *rest_ <= 'f')
        value = value * 16 + static_cast<uint64_t>(*rest_ - 'a' + 10);
      else
        return value;
    }
  }

  const Descriptor list_{::open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
  char block_[4096], line_[PATH_MAX + 200];
  size_t at_ = 0, filled_ = 0, length_ = 0;
  char* rest_ = nullptr;
};

void say(const char* text) {
  for (size_t left = std::strlen(text); left > 0;) {
    const ssize_t count = ::write(STDERR_FILENO, text, left);
    if (count <= 0) return;
    text += count;
    left -= static_cast<size_t>(count);
  }
}

// Which the list has as "\\012".
void restore_newlines(char* path) {
  char* to = path;
  for (const char* from = path; *from; ++to) {
    const bool escaped = std::strncmp(from, "\\012", 4) == 0;
    *to = escaped ? '\n' : *from;
    from += escaped ? 4 : 1;
  }
  *to = '\0';
}

// Whether the sentence could be said.
bool explain(uint64_t address) {
  Mappings mappings;
  while (mappings.next()) {
    if (address < mappings.begin || address >= mappings.end) continue;
    if (!mappings.is_read_only_file) return false;
    restore_newlines(mappings.path);
    struct stat status {};
    const bool shorter = ::stat(mappings.path, &status) == 0 &&
                         static_cast<uint64_t>(status.st_size) <= mappings.offset + (address - mappings.begin);
    for (char* c = mappings.path; *c; ++c)
      if (static_cast<unsigned char>(*c) < ' ' || *c == '\x7f') *c = '?';
    say(beginning->c_str());
    say(mappings.path);
    say(shorter ? ": another program made it shorter while it was in use\n"
                : ": the system could not bring a part of it into memory\n");
    return true;
  }
  return false;
}

void handle(int number, siginfo_t* info, void*) {
  static std::atomic_flag busy;
  while (busy.test_and_set()) ::pause();  // another thread is saying it, and ends the program
  if (info->si_code == BUS_ADRERR && explain(reinterpret_cast<uint64_t>(info->si_addr))) ::_exit(1);
  std::signal(number, SIG_DFL);
  ::raise(number);  // as soon as this handler has returned
}

}  // namespace

void explain_lost_pages() {
  const ProcessShare share = process_share();
  beginning = new std::string(on_terminal() ? "\r\033[K" : "");  // over a progress line
  *beginning += "linnet: " + (share.index > 0 ? which_process(share) : "") + "cannot read ";
  struct sigaction action {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace linnet::app
