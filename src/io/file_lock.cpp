#include "io/file_lock.h"

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>

#include "core/error.h"
#include "io/text.h"

namespace linnet {
namespace {

// False if another holds it.
bool try_lock(int file) {
  while (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return false;
    if (errno != EINTR) return true;  // no locks here
  }
  return true;
}

}  // namespace

std::unique_ptr<FileLock> FileLock::take(const std::filesystem::path& path) {
  const std::string name = path.string();
  for (;;) {
    Descriptor file(::open(name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
    check(file.valid(), "cannot write {}: {}", printable(name), std::generic_category().message(errno));
    if (!try_lock(file.get())) return nullptr;
    // Whoever held it may have removed it between the two.
    if (is_at(file.get(), name)) return std::unique_ptr<FileLock>(new FileLock(name, std::move(file)));
  }
}

FileLock::~FileLock() {
  if (is_at(file_.get(), path_)) ::unlink(path_.c_str());
}

}  // namespace linnet
