// The sentence with which something is refused.
#pragma once

#include <functional>
#include <string>

#include "core/error.h"

namespace linnet::test {

/// What the Error says that body throws; "accepted" if it throws none.
inline std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace linnet::test
