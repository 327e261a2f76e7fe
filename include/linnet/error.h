// What Linnet throws. Every message is one sentence that a user can act on: which file or tensor, what was
// expected, what was found.
#pragma once

#include <stdexcept>

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

/// The system has no more memory to give.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

}  // namespace linnet
