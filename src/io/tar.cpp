#include "io/tar.h"

#include <archive.h>
#include <archive_entry.h>

#include <memory>
#include <vector>

#include "core/error.h"
#include "io/text.h"

namespace linnet {
namespace {

constexpr size_t read_at_once = 1 << 20;

using Archive = std::unique_ptr<archive, decltype(&archive_read_free)>;

[[noreturn]] void damaged(const std::filesystem::path& path, archive* reader) {
  const char* reason = archive_error_string(reader);
  fail("{} cannot be read as a tar file: {}", printable(path.string()),
       reason ? printable(reason) : "it is damaged");
}

void read_member(const std::filesystem::path& path, archive* reader, archive_entry* entry, size_t most_bytes,
                 const OnMember& on_member) {
  const char* name = archive_entry_pathname(entry);
  check(name != nullptr, "{}: a member has no name", printable(path.string()));
  const int64_t promised = archive_entry_size(entry);
  check(promised >= 0 && static_cast<uint64_t>(promised) <= most_bytes,
        "{}: {} is too large ({} bytes, at most {})", printable(path.string()), printable(name), promised,
        most_bytes);
  std::vector<std::byte> bytes(static_cast<size_t>(promised));
  size_t filled = 0;
  while (filled < bytes.size()) {
    const la_ssize_t got = archive_read_data(reader, bytes.data() + filled, bytes.size() - filled);
    if (got < 0) damaged(path, reader);
    check(got > 0, "{}: {} is cut short", printable(path.string()), printable(name));
    filled += static_cast<size_t>(got);
  }
  on_member(name, bytes);
}

}  // namespace

void read_tar(const std::filesystem::path& path, size_t most_bytes, const OnMember& on_member) {
  const Archive reader(archive_read_new(), &archive_read_free);
  if (!reader) throw OutOfMemory("out of memory");
  archive_read_support_format_tar(reader.get());
  archive_read_support_filter_gzip(reader.get());
  archive_read_support_filter_zstd(reader.get());
  if (archive_read_open_filename(reader.get(), path.c_str(), read_at_once) != ARCHIVE_OK)
    damaged(path, reader.get());
  archive_entry* entry = nullptr;
  for (;;) {
    const int state = archive_read_next_header(reader.get(), &entry);
    if (state == ARCHIVE_EOF) return;
    if (state != ARCHIVE_OK && state != ARCHIVE_WARN) damaged(path, reader.get());
    if (archive_entry_filetype(entry) == AE_IFREG)
      read_member(path, reader.get(), entry, most_bytes, on_member);
  }
}

}  // namespace linnet
