#include "io/file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace linnet {

void write_file_atomically(const std::filesystem::path& path, const std::function<void(std::FILE*)>& write) {
  const auto give_up = [&](int reason) { fail("cannot write {}: {}", path.string(), std::strerror(reason)); };
  const std::filesystem::path partial = path.string() + ".partial";
  std::FILE* file = std::fopen(partial.c_str(), "wb");
  if (!file) give_up(errno);
  try {
    write(file);
    if (std::fflush(file) != 0 || ::fsync(::fileno(file)) != 0 || std::ferror(file)) give_up(errno);
    if (std::fclose(std::exchange(file, nullptr)) != 0) give_up(errno);
    if (std::rename(partial.c_str(), path.c_str()) != 0) give_up(errno);
  } catch (...) {
    if (file) std::fclose(file);
    std::remove(partial.c_str());
    throw;
  }
}

}  // namespace linnet
