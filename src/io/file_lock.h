// A file by which one process keeps others out as long as it works. It is the system's lock that counts
// (flock), not that the file is there: one that a kill left behind keeps nobody out.
#pragma once

#include <filesystem>
#include <memory>

#include "io/descriptor.h"

namespace linnet {

class FileLock {
 public:
  /// Makes the file, which goes when the lock does; null if another holds it. A file system that knows no locks
  /// keeps nobody out. Throws Error when the file cannot be made.
  static std::unique_ptr<FileLock> take(const std::filesystem::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  FileLock(std::string path, Descriptor file) : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  Descriptor file_;
};

}  // namespace linnet
