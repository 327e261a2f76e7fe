// Throwing errors with a formatted sentence. The library never prints and never exits; the command maps Error
// to exit code 1, UsageError to 2.
#pragma once

#include <fmt/format.h>

#include <utility>

#include <linnet/error.h>

namespace linnet {

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void check(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace linnet
