#include "io/zip.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "io/bytes.h"
#include "io/text.h"

namespace linnet {
namespace {

constexpr uint32_t local_signature = 0x04034b50, central_signature = 0x02014b50, end_signature = 0x06054b50,
                   end64_signature = 0x06064b50, locator64_signature = 0x07064b50;
constexpr size_t end_size = 22, locator64_size = 20;

struct Directory {
  uint64_t entries = 0, offset = 0;
};

struct Entry {
  std::string name;
  uint16_t flags = 0, method = 0;
  uint64_t compressed = 0, size = 0, offset = 0;
};

// The end record lies behind all else, but a comment of up to 64 kB may follow it.
size_t find_end(std::span<const std::byte> archive, const std::string& source) {
  check(archive.size() >= end_size, "{}: this zip archive is cut off", source);
  const size_t furthest = archive.size() - std::min<size_t>(archive.size(), end_size + 0xffff);
  for (size_t at = archive.size() - end_size + 1; at-- > furthest;) {
    uint32_t signature;
    std::memcpy(&signature, archive.data() + at, sizeof signature);
    if (signature == end_signature) return at;
  }
  fail("{}: this zip archive has no directory; it is cut off or damaged", source);
}

std::optional<Directory> find_directory64(std::span<const std::byte> archive, size_t end,
                                          const std::string& source) {
  if (end < locator64_size) return std::nullopt;
  ByteReader reader(archive, source);
  reader.seek(end - locator64_size);
  if (reader.number<uint32_t>() != locator64_signature) return std::nullopt;
  reader.number<uint32_t>();  // disk
  reader.seek(reader.number<uint64_t>());
  check(reader.number<uint32_t>() == end64_signature, "{}: the zip archive's directory is damaged", source);
  reader.take(8 + 2 + 2 + 4 + 4 + 8);  // sizes, versions, disks, entries on this disk
  Directory result;
  result.entries = reader.number<uint64_t>();
  reader.number<uint64_t>();  // size
  result.offset = reader.number<uint64_t>();
  return result;
}

Directory find_directory(std::span<const std::byte> archive, const std::string& source) {
  const size_t end = find_end(archive, source);
  if (const auto large = find_directory64(archive, end, source)) return *large;
  ByteReader reader(archive, source);
  reader.seek(end + 10);
  Directory result;
  result.entries = reader.number<uint16_t>();
  reader.number<uint32_t>();
  result.offset = reader.number<uint32_t>();
  return result;
}

// Sizes and places that do not fit 32 bits stand in an extra field, in this order, where the usual one is all
// ones.
void read_large_numbers(std::span<const std::byte> extra, Entry& entry, const std::string& source) {
  ByteReader fields(extra, source);
  while (fields.left() >= 4) {
    const auto kind = fields.number<uint16_t>();
    const auto size = fields.number<uint16_t>();
    if (size > fields.left()) return;  // padding, as PyTorch writes for alignment, may end early
    ByteReader field(fields.take(size), source);
    if (kind != 1) continue;
    for (uint64_t* value : {&entry.size, &entry.compressed, &entry.offset})
      if (*value == 0xffffffff) *value = field.number<uint64_t>();
  }
}

Entry read_entry(ByteReader& reader, const std::string& source) {
  check(reader.number<uint32_t>() == central_signature, "{}: the zip archive's directory is damaged", source);
  Entry entry;
  reader.take(4);  // versions
  entry.flags = reader.number<uint16_t>();
  entry.method = reader.number<uint16_t>();
  reader.take(8);  // time, date, checksum
  entry.compressed = reader.number<uint32_t>();
  entry.size = reader.number<uint32_t>();
  const auto name = reader.number<uint16_t>(), extra = reader.number<uint16_t>(),
             comment = reader.number<uint16_t>();
  reader.take(8);  // disk, attributes
  entry.offset = reader.number<uint32_t>();
  entry.name = reader.text(name);
  read_large_numbers(reader.take(extra), entry, source);
  reader.take(comment);
  return entry;
}

struct Part {
  size_t begin = 0, end = 0;  // header and contents
  std::span<const std::byte> contents;
};

Part find_part(std::span<const std::byte> archive, const Entry& entry, const std::string& source) {
  const std::string name = printable(entry.name);
  check((entry.flags & 1) == 0, "{}: the file '{}' in it is encrypted", source, name);
  check(entry.method == 0 && entry.compressed == entry.size,
        "{}: the file '{}' in it is compressed, which PyTorch's own files are not", source, name);
  ByteReader reader(archive, source);
  reader.seek(entry.offset);
  check(reader.number<uint32_t>() == local_signature, "{}: the file '{}' in it is not where the directory says",
        source, name);
  reader.take(22);  // all of which the directory has too
  const auto name_size = reader.number<uint16_t>(), extra_size = reader.number<uint16_t>();
  check(reader.text(name_size) == entry.name, "{}: the file '{}' in it has another name before its contents",
        source, name);
  reader.take(extra_size);
  const auto contents = reader.take(entry.size);
  return {static_cast<size_t>(entry.offset), reader.position(), contents};
}

// No two files share bytes, and none lies in the directory: readers that disagree on what an archive holds are
// how something is smuggled past one of them.
void check_apart(std::vector<Part> parts, uint64_t directory, const std::string& source) {
  std::ranges::sort(parts, {}, &Part::begin);
  size_t end = 0;
  for (const Part& part : parts) {
    check(part.begin >= end && part.end <= directory, "{}: files in this zip archive overlap", source);
    end = part.end;
  }
}

}  // namespace

bool is_zip(std::span<const std::byte> archive) {
  uint32_t signature = 0;
  if (archive.size() >= sizeof signature) std::memcpy(&signature, archive.data(), sizeof signature);
  return signature == local_signature;
}

ZipFiles read_zip(std::span<const std::byte> archive, const std::string& source) {
  const Directory directory = find_directory(archive, source);
  ByteReader reader(archive, source);
  reader.seek(directory.offset);
  ZipFiles files;
  std::vector<Part> parts;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const Entry entry = read_entry(reader, source);
    const Part part = find_part(archive, entry, source);
    check(files.emplace(entry.name, part.contents).second, "{}: the file '{}' is in it twice", source,
          printable(entry.name));
    parts.push_back(part);
  }
  check_apart(std::move(parts), directory.offset, source);
  return files;
}

}  // namespace linnet
