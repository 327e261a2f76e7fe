// Errors are exceptions whose sentence a user can act on: which file or tensor, what was expected, what was
// found. The library never prints and never exits; the command maps Error to exit code 1, UsageError to 2.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

namespace linnet {

/// Something went wrong while doing what was asked (unreadable file, wrong shapes, disk full).
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What was asked for is itself wrong (unknown class, impossible size, unknown setting).
class UsageError : public Error {
 public:
  using Error::Error;
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void check(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace linnet
