// Whose fault an error is: work on what a file holds may be refused by who does not know the file.
#pragma once

#include <string>
#include <string_view>

#include "core/error.h"

namespace linnet {

/// What f gives. The sentence of an Error that it throws begins with the source in the end, unless the machine
/// is at fault, so that f need not name it.
template <class F>
auto naming(const std::string& source, F f) {
  try {
    return f();
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error& error) {
    if (std::string_view(error.what()).starts_with(source + ": ")) throw;
    fail("{}: {}", source, error.what());
  }
}

}  // namespace linnet
