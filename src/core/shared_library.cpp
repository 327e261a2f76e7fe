#include "core/shared_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/printable.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

// Beside the program, where an installation keeps libraries, or where the system looks.
std::vector<fs::path> places_of(const SharedLibrary& library) {
  if (const char* given = std::getenv(library.variable); given && *given) return {given};
  std::vector<fs::path> result;
  std::error_code problem;
  if (const fs::path program = fs::read_symlink("/proc/self/exe", problem); !problem) {
    const fs::path folder = program.parent_path();
    for (const char* place : {".", "../lib", "../lib/linnet", ".."})
      result.push_back((folder / place / library.name).lexically_normal());
  }
  result.emplace_back(library.name);
  return result;
}

void* open(const SharedLibrary& library) {
  const char* const given = std::getenv(library.variable);
  std::string problems =
      given && *given ? fmt::format("there is no {}", printable(given)) : "it is not where it was looked for";
  for (const fs::path& path : places_of(library)) {
    std::error_code ignored;
    if (path.has_parent_path() && !fs::exists(path, ignored)) continue;
    if (void* const opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return opened;
    problems = printable(dlerror(), 1000);
  }
  fail("{}: Linnet's library for it, {}, could not be loaded ({}); set {} to its path, or {}", library.without,
       library.name, problems, library.variable, library.instead);
}

}  // namespace

void* load(const SharedLibrary& library) {
  void* const entry = dlsym(open(library), library.entry);
  check(entry != nullptr, "{} is not a library of Linnet's: it has no {}", library.name, library.entry);
  return entry;
}

}  // namespace linnet
