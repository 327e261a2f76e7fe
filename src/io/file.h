// Files as wholes: written so that a crash, a full disk or a kill never leaves half a file under its name, read
// with a limit, or mapped. POSIX only; what is in the files is for the readers beside this one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace linnet {

/// Whether what is written must be there after the power has failed, too, or can be made again: a disk takes
/// milliseconds to make sure of a file, which of a hundred thousand pictures are many minutes.
enum class Durability : uint8_t { durable, replaceable };

/// Writes path as a whole or not at all: write() fills "<path>.partial", which is flushed to the disk and then
/// renamed to path; whoever has the old file open or mapped keeps the old contents. Any failure removes the
/// partial file and leaves the old one; a kill leaves the old one and a partial file that the next call
/// overwrites. A symbolic link is followed, also to what is not there yet. Throws Error naming path and the
/// system's reason; what write() itself throws passes through. Of two processes that write the same path at
/// once one waits for the other, and the last to write wins. What is replaceable is renamed without being
/// flushed: only when the system itself goes down may there be an empty or a damaged file.
void write_file_atomically(const std::filesystem::path& path, const std::function<void(std::FILE*)>& write,
                           Durability durability = Durability::durable);

/// A whole text, by write_file_atomically.
void write_text_file(const std::filesystem::path& path, std::string_view text);

/// Whether there is a folder, a regular file, or anything at all, behind links too. Also no when the system
/// does not tell (a link to itself, a name too long, a folder that may not be entered): who opens the path
/// hears why.
bool is_folder(const std::filesystem::path& path);
bool is_file(const std::filesystem::path& path);
bool is_there(const std::filesystem::path& path);
/// Before it is said that something is missing, which is true only of what the system tells: throws Error with
/// its reason when it does not.
void check_told(const std::filesystem::path& path);
/// What lies directly in a folder, in no order. Throws Error when that cannot be read.
std::vector<std::filesystem::directory_entry> entries_of(const std::filesystem::path& folder);
/// The same of one of those. The folder says what it is, so that the disk is asked once more only where a link
/// leads, or on file systems that do not say.
bool is_folder(const std::filesystem::directory_entry& entry);
bool is_file(const std::filesystem::directory_entry& entry);

/// Whether its name begins with a point, as that of what systems and tools put beside people's files does:
/// ".ipynb_checkpoints", the Hub's ".cache", macOS's "._a.jpg".
bool is_hidden(const std::filesystem::path& path);

/// The folder that a path names, without the slashes behind it.
std::filesystem::path path_of_folder(const std::filesystem::path& path);

/// From the root on. Throws Error when the path begins at the current folder and that has been removed.
std::filesystem::path absolute_path(const std::filesystem::path& path);

/// Says before long work what would stop write_file_atomically(path) after it: throws Error when path is a
/// folder, or its folder is missing, may not be written to or takes no name as long as the partial file's, or
/// in that one's place is what cannot be written over. (A disk may still fill up meanwhile.)
void check_writable(const std::filesystem::path& path);
/// The same but for what lies in the partial file's place, for who makes a folder there first.
void check_place_writable(const std::filesystem::path& path);

/// The same of a folder that files are to be written into, and that is made if need be: throws Error when it,
/// or the first folder above it that is there, is none or may not be written to.
void check_folder_writable(const std::filesystem::path& folder);
/// Makes it, with those above it. Throws Error.
void make_folder(const std::filesystem::path& folder);

/// Says before long work that write_file_atomically(output) would destroy what is read: throws UsageError when
/// output, or the partial file that it is written as, is the file input, also by way of links.
void check_keeps(const std::filesystem::path& output, const std::filesystem::path& input);
/// The same where output may replace input when it is done: only the partial file must be another.
void check_keeps_until_done(const std::filesystem::path& output, const std::filesystem::path& input);
/// Where a write to path ends up: two paths of one place are equal. Links are followed, also one to what is not
/// there yet. Throws Error when path is a folder or no regular file.
std::filesystem::path place_of_file(const std::filesystem::path& path);

/// fwrite of all bytes, for use within write_file_atomically; throws std::system_error, which that turns into
/// an Error with the path. (Without it, a full disk is noticed only when the callback has returned.)
void write_bytes(std::FILE* file, const void* data, size_t bytes);

/// The contents of a file of at most limit bytes. Throws Error if it cannot be read or is larger.
std::string read_text_file(const std::filesystem::path& path, size_t limit);

/// What tells a file from another of its size at little cost: its first and last 4 kB, and of a file beyond 1
/// MB as much at 14 places between; a small file whole. Empty if it cannot be read.
std::string sample_file(const std::filesystem::path& path);

/// A regular file's contents, read-only, paged in as they are touched. Replacing the file (as
/// write_file_atomically does) is harmless, but when another process truncates it in place, the system kills a
/// process that touches the lost pages (SIGBUS): no reader of mapped files can prevent that. (The command says
/// which file it was, apps/linnet/lost_pages.h.)
class MappedFile {
 public:
  /// Throws Error when path is missing, empty, not a regular file or not permitted to be read.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  size_t size() const { return size_; }
  const std::byte* data() const { return data_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}

  const std::byte* data_;
  size_t size_;
};

/// Gives back to the system the pages of all mapped files that are in memory; they are read again when they are
/// touched, mostly from the system's own cache. For who goes through a large file once.
void forget_mapped_pages();

}  // namespace linnet
