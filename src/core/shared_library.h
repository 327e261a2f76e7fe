// Parts of the program that lie in libraries of their own and are loaded when they are wanted, so that it stays
// small and also runs where what they stand on is missing.
#pragma once

#include <cstddef>

namespace linnet {

struct SharedLibrary {
  const char* name;      ///< its file's
  const char* variable;  ///< of the environment: a path that is used instead of looking for it
  const char* entry;     ///< the function that is wanted
  const char* without;   ///< what a sentence says that it could not be: "no GPU can be used"
  const char* instead;   ///< and of what to do instead
};

/// Loads it, from where the variable says, beside the program, where an installation keeps libraries, or where
/// the system looks, and returns its function. Throws Error saying what is missing.
void* load(const SharedLibrary& library);

}  // namespace linnet
