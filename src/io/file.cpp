#include "io/file.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "io/descriptor.h"
#include "io/text.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

std::string reason(int code) { return std::generic_category().message(code); }

// An empty file at path that no other process writes to: who comes second waits until the first has renamed its
// file, and then makes one of its own. File systems without locks are used without.
int open_alone(const std::string& path) {
  for (;;) {
    Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (!file.valid()) throw std::system_error(errno, std::generic_category());
    while (::flock(file.get(), LOCK_EX) != 0 && errno == EINTR) {
    }
    if (!is_at(file.get(), path)) continue;
    if (::ftruncate(file.get(), 0) != 0) throw std::system_error(errno, std::generic_category());
    return file.release();
  }
}

fs::path partial_of(const fs::path& target) { return target.string() + ".partial"; }

// A full disk of another machine may say so only when a file is closed; the copy leaves it open, and locked.
int close_a_copy(int descriptor) {
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  return copy < 0 ? -1 : ::close(copy);
}

// The partial file: locked as long as it is open, removed unless it has been renamed.
class PartialFile {
 public:
  explicit PartialFile(const fs::path& target) : path_(partial_of(target).string()) {
    const int descriptor = open_alone(path_);
    file_ = ::fdopen(descriptor, "wb");
    if (file_) return;
    const int code = errno;
    ::unlink(path_.c_str());
    ::close(descriptor);
    throw std::system_error(code, std::generic_category());
  }
  ~PartialFile() {
    if (!renamed_) ::unlink(path_.c_str());
    std::fclose(file_);
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  std::FILE* get() { return file_; }

  // All that was written is on the disk, or with the system, or this throws; only then is it renamed, still
  // locked.
  void rename_to(const fs::path& target, Durability durability) {
    if (std::ferror(file_)) throw std::system_error(errno ? errno : EIO, std::generic_category());
    const int descriptor = ::fileno(file_);
    if (std::fflush(file_) != 0 ||
        (durability == Durability::durable ? ::fsync(descriptor) : close_a_copy(descriptor)) != 0)
      throw std::system_error(errno, std::generic_category());
    if (std::rename(path_.c_str(), target.c_str()) != 0)
      throw std::system_error(errno, std::generic_category());
    renamed_ = true;
  }

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
  bool renamed_ = false;
};

// Makes the renaming itself durable. File systems that cannot do that say EINVAL; a folder that may be written
// but not listed cannot be opened: in both cases the file is as safe as it can be.
void sync_folder(const fs::path& folder) {
  const Descriptor descriptor(
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor.valid()) return;
  if (::fsync(descriptor.get()) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS)
    throw std::system_error(errno, std::generic_category());
}

// Where a write to path ends up. Refuses what renaming would destroy, such as /dev/null.
fs::path final_target(const fs::path& path) {
  check(!path.filename().empty(), "cannot write {}: it names a folder, not a file", printable(path.string()));
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  check(!fs::is_directory(status), "cannot write {}: it is a folder", printable(path.string()));
  check(!fs::exists(status) || fs::is_regular_file(status), "cannot write {}: it is not a regular file",
        printable(path.string()));
  // Also a link to what is not there yet is followed, which canonical() would not do.
  fs::path target = path;
  for (int links = 0; fs::is_symlink(target, ignored); ++links) {
    check(links < 40, "cannot write {}: {}", printable(path.string()), reason(ELOOP));
    target = target.parent_path() / fs::read_symlink(target, ignored);
  }
  return target;
}

// What lies where the partial file is to be must be one that a kill has left: nothing else is written over.
void check_partial(const fs::path& path, const fs::path& target) {
  const fs::path partial = partial_of(target);
  std::error_code ignored;
  const fs::file_status status = fs::symlink_status(partial, ignored);
  if (!fs::exists(status)) return;
  check(fs::is_regular_file(status), "cannot write {}: it is written as {} first, which is no regular file",
        printable(path.string()), printable(partial.string()));
  const int denied = ::access(partial.c_str(), W_OK) == 0 ? 0 : errno;
  check(denied == 0, "cannot write {}: it is written as {} first, which is there already: {}",
        printable(path.string()), printable(partial.string()), reason(denied));
}

// Opened without waiting, so that a named pipe is refused instead of hanging the program.
int open_for_reading(const fs::path& path, struct stat& status) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  check(descriptor >= 0, "cannot open {}: {}", printable(path.string()), reason(errno));
  if (::fstat(descriptor, &status) != 0) {
    const int code = errno;
    ::close(descriptor);
    fail("cannot open {}: {}", printable(path.string()), reason(code));
  }
  return descriptor;
}

}  // namespace

void write_file_atomically(const fs::path& path, const std::function<void(std::FILE*)>& write,
                           Durability durability) {
  const fs::path target = final_target(path);
  check_partial(path, target);
  try {
    PartialFile partial(target);
    errno = 0;
    write(partial.get());
    partial.rename_to(target, durability);
    if (durability == Durability::durable) sync_folder(target.parent_path());
  } catch (const std::system_error& error) {
    const int code = error.code().value();
    // What the system itself cannot read of a mapped file is no SIGBUS, but said of the writing.
    fail("cannot write {}: {}", printable(path.string()),
         code == EFAULT ? "a file that it is made of was made shorter while it was read" : reason(code));
  }
}

namespace {

fs::file_status status_of(const fs::path& path) {
  std::error_code ignored;
  return fs::status(path, ignored);
}

}  // namespace

bool is_folder(const fs::path& path) { return fs::is_directory(status_of(path)); }
bool is_file(const fs::path& path) { return fs::is_regular_file(status_of(path)); }
bool is_there(const fs::path& path) { return fs::exists(status_of(path)); }

void check_told(const fs::path& path) {
  std::error_code problem;
  const fs::file_status status = fs::status(path, problem);
  check(fs::exists(status) || status.type() == fs::file_type::not_found, "cannot read {}: {}",
        printable(path.string()), reason(problem.value()));
}

bool is_folder(const fs::directory_entry& entry) {
  std::error_code ignored;
  return entry.is_directory(ignored);
}
bool is_file(const fs::directory_entry& entry) {
  std::error_code ignored;
  return entry.is_regular_file(ignored);
}

std::vector<fs::directory_entry> entries_of(const fs::path& folder) {
  std::error_code problem;
  std::vector<fs::directory_entry> entries;
  for (fs::directory_iterator at(folder, problem); !problem && at != fs::directory_iterator();
       at.increment(problem))
    entries.push_back(*at);
  check(!problem, "cannot read {}: {}", printable(folder.string()), reason(problem.value()));
  return entries;
}

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

fs::path path_of_folder(const fs::path& path) {
  return path.has_filename() || !path.has_relative_path() ? path : path.parent_path();
}

fs::path absolute_path(const fs::path& path) {
  std::error_code problem;
  fs::path result = fs::absolute(path, problem);
  check(!problem, "cannot tell where {} is, as the current folder is no more to be found ({}): go to another",
        printable(path.string()), reason(problem.value()));
  return result;
}

void check_writable(const fs::path& path) {
  check_place_writable(path);
  check_partial(path, final_target(path));
}

void check_place_writable(const fs::path& path) {
  const fs::path target = final_target(path);
  absolute_path(target);  // a folder that was removed still looks as if it could be written to
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  std::error_code unknown;
  const fs::file_status status = fs::status(folder, unknown);
  check(fs::status_known(status), "cannot write {}: {}", printable(path.string()), reason(unknown.value()));
  check(fs::exists(status), "cannot write {}: there is no folder {}", printable(path.string()),
        printable(folder.string()));
  check(fs::is_directory(status), "cannot write {}: {} is not a folder", printable(path.string()),
        printable(folder.string()));
  const int problem = ::access(folder.c_str(), W_OK | X_OK) == 0 ? 0 : errno;
  check(problem == 0, "cannot write {}: {}", printable(path.string()), reason(problem));
  const long longest = ::pathconf(folder.c_str(), _PC_NAME_MAX);  // below 0: any
  const size_t length = partial_of(target).filename().string().size();
  check(longest < 0 || length <= static_cast<size_t>(longest), "cannot write {}: {}", printable(path.string()),
        reason(ENAMETOOLONG));
}

namespace {

// The folder, or the first above it that is there, as a link at least. Throws Error when that leads to nothing:
// no folder is made behind a link.
fs::path what_is_there_of(const fs::path& folder) {
  fs::path there = path_of_folder(folder);
  std::error_code ignored;
  while (!fs::exists(fs::symlink_status(there, ignored)) && there.has_relative_path()) {
    there = there.parent_path();
    if (there.empty()) there = ".";
  }
  const bool leads_to_nothing =
      fs::is_symlink(there, ignored) && fs::status(there, ignored).type() == fs::file_type::not_found;
  check(!leads_to_nothing, "cannot make the folder {}: {} is a link to {}, where there is nothing",
        printable(folder.string()), printable(there.string()),
        printable(fs::read_symlink(there, ignored).string()));
  return there;
}

}  // namespace

void check_folder_writable(const fs::path& folder) {
  const std::string name = printable(folder.string());
  check(!folder.empty(), "cannot make the folder \"\": it has no name");
  absolute_path(folder);
  const fs::path there = what_is_there_of(folder);
  std::error_code problem;
  const std::string above = there == path_of_folder(folder) ? "it" : printable(there.string());
  const fs::file_status status = fs::status(there, problem);
  check(fs::status_known(status), "cannot make the folder {}: {}", name, reason(problem.value()));
  check(fs::is_directory(status), "cannot make the folder {}: {} is not a folder", name, above);
  const int denied = ::access(there.c_str(), W_OK | X_OK) == 0 ? 0 : errno;
  check(denied == 0, "cannot write into the folder {}: {}", name, reason(denied));
}

void make_folder(const fs::path& folder) {
  std::error_code problem;
  fs::create_directories(path_of_folder(folder), problem);
  if (problem) {  // these two's sentences say more, where they have one
    absolute_path(folder);
    what_is_there_of(folder);
  }
  check(!problem, "cannot make the folder {}: {}", printable(folder.string()), reason(problem.value()));
}

void check_keeps_until_done(const fs::path& output, const fs::path& input) {
  std::error_code ignored;
  if (fs::equivalent(partial_of(final_target(output)), input, ignored))
    throw UsageError(
        fmt::format("cannot write {}: it is written as {} first, which is read; choose another name",
                    printable(output.string()), printable(input.string())));
}

void check_keeps(const fs::path& output, const fs::path& input) {
  std::error_code ignored;
  if (fs::equivalent(output, input, ignored))
    throw UsageError(fmt::format("cannot write {}: it is the file that is read; choose another name",
                                 printable(output.string())));
  check_keeps_until_done(output, input);
}

fs::path place_of_file(const fs::path& path) {
  std::error_code problem;
  const fs::path target = absolute_path(final_target(path));
  const fs::path place = fs::weakly_canonical(target, problem);
  return problem ? target : place;
}

void write_bytes(std::FILE* file, const void* data, size_t bytes) {
  if (bytes == 0) return;
  errno = 0;
  if (std::fwrite(data, 1, bytes, file) != bytes)
    throw std::system_error(errno ? errno : EIO, std::generic_category());
}

void write_text_file(const fs::path& path, std::string_view text) {
  write_file_atomically(path, [text](std::FILE* file) { write_bytes(file, text.data(), text.size()); });
}

std::string read_text_file(const fs::path& path, size_t limit) {
  struct stat status {};
  const Descriptor descriptor(open_for_reading(path, status));
  check(S_ISREG(status.st_mode), "cannot read {}: it is not a regular file", printable(path.string()));
  const auto check_size = [&](size_t size) {
    check(size <= limit, "{} is larger than the {} bytes expected at most", printable(path.string()), limit);
  };
  check_size(static_cast<size_t>(status.st_size));  // before gigabytes are read of what is refused
  std::string text;
  char block[1 << 14];
  for (;;) {
    const ssize_t count = ::read(descriptor.get(), block, sizeof block);
    if (count < 0 && errno == EINTR) continue;
    check(count >= 0, "cannot read {}: {}", printable(path.string()), reason(errno));
    if (count == 0) return text;
    text.append(block, static_cast<size_t>(count));
    check_size(text.size());
  }
}

std::string sample_file(const fs::path& path) {
  constexpr size_t block = 4096, large = size_t{1} << 20;
  struct stat status {};
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid() || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
  const auto size = static_cast<size_t>(status.st_size);
  const size_t blocks = size <= block ? 1 : size <= large ? 2 : 16, last = size - std::min(size, block);
  std::string samples(blocks * block, '\0');
  size_t read = 0;
  for (size_t i = 0; i < blocks; ++i) {
    const size_t at = blocks == 1 ? 0 : last * i / (blocks - 1);
    const ssize_t count = ::pread(file.get(), samples.data() + read, block, static_cast<off_t>(at));
    if (count > 0) read += static_cast<size_t>(count);
  }
  samples.resize(read);
  return samples;
}

namespace {

// All mappings that are alive.
struct Mappings {
  std::mutex mutex;
  std::map<const void*, size_t> alive;
};
Mappings& mappings() {
  static Mappings* const all = new Mappings;  // outlives every static that holds a mapping
  return *all;
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  struct stat status {};
  const Descriptor descriptor(open_for_reading(path, status));
  check(!S_ISDIR(status.st_mode), "cannot read {}: it is a folder", printable(path.string()));
  check(S_ISREG(status.st_mode), "cannot read {}: it is not a regular file", printable(path.string()));
  check(status.st_size > 0, "cannot read {}: the file is empty", printable(path.string()));
  const auto size = static_cast<size_t>(status.st_size);
  void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  check(data != MAP_FAILED, "cannot map {} ({} bytes): {}", printable(path.string()), size, reason(errno));
  const std::scoped_lock lock(mappings().mutex);
  mappings().alive.emplace(data, size);
  return std::shared_ptr<const MappedFile>(new MappedFile(static_cast<const std::byte*>(data), size));
}

MappedFile::~MappedFile() {
  const std::scoped_lock lock(mappings().mutex);
  mappings().alive.erase(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

void forget_mapped_pages() {
  const std::scoped_lock lock(mappings().mutex);
  for (const auto& [data, size] : mappings().alive) ::madvise(const_cast<void*>(data), size, MADV_DONTNEED);
}

}  // namespace linnet
