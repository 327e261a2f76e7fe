#include "io/npz.h"

#include <archive.h>
#include <archive_entry.h>

#include <charconv>
#include <cstring>
#include <memory>
#include <vector>

#include "io/file.h"
#include "io/text.h"

namespace linnet {
namespace {

constexpr size_t read_at_once = 1 << 20, most_header = 1 << 16;

using Reader = std::unique_ptr<archive, decltype(&archive_read_free)>;
using Writer = std::unique_ptr<archive, decltype(&archive_write_free)>;

std::string reason(archive* file) {
  const char* text = archive_error_string(file);
  return text ? printable(text) : "it is damaged";
}

std::optional<DType> dtype_of(std::string_view name) {
  constexpr std::pair<std::string_view, DType> known[] = {
      {"|u1", DType::u8}, {"<f2", DType::f16}, {"<f4", DType::f32}, {"<f8", DType::f64},
      {"|i1", DType::i8}, {"<i4", DType::i32}, {"<i8", DType::i64}};
  for (const auto& [theirs, ours] : known)
    if (name == theirs) return ours;
  return std::nullopt;
}

// A .npy header is a Python dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
class Header {
 public:
  Header(std::string text, std::string where) : text_(std::move(text)), where_(std::move(where)) {}

  std::string descr() const {
    const std::string_view rest = after("'descr'");
    check(rest.size() > 2 && rest[0] == '\'' && rest.find('\'', 1) != rest.npos, "{}: its type is not readable",
          where_);
    return std::string(rest.substr(1, rest.find('\'', 1) - 1));
  }
  bool fortran_order() const { return !after("'fortran_order'").starts_with("False"); }
  Shape shape() const {
    std::string_view rest = after("'shape'");
    check(rest.starts_with('(') && rest.find(')') != rest.npos, "{}: its shape is not readable", where_);
    const std::string_view all = rest = rest.substr(1, rest.find(')') - 1);
    std::vector<int64_t> extents;
    int64_t values = 1;
    while (true) {
      const size_t begin = rest.find_first_not_of(" ,");
      if (begin == rest.npos) break;
      rest.remove_prefix(begin);
      int64_t extent = -1;
      const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), extent);
      check(problem == std::errc() && extent >= 0 && extents.size() < 4 &&
                !__builtin_mul_overflow(values, std::max<int64_t>(extent, 1), &values) &&
                values < (int64_t{1} << 48),
            "{}: its shape ({}) is not one of at most four dimensions", where_, printable(all));
      extents.push_back(extent);
      rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    }
    return Shape(std::span<const int64_t>(extents));
  }

 private:
  std::string_view after(std::string_view key) const {
    const size_t place = text_.find(key);
    check(place != std::string::npos, "{}: its header lacks {}", where_, key);
    std::string_view rest = std::string_view(text_).substr(place + key.size());
    const size_t begin = rest.find_first_not_of(": ");
    return begin == rest.npos ? std::string_view() : rest.substr(begin);
  }

  std::string text_, where_;
};

// One array, as it comes out of the archive.
class Stream {
 public:
  Stream(archive* reader, std::string where) : reader_(reader), where_(std::move(where)) {}

  void read(void* into, size_t bytes) {
    auto* to = static_cast<char*>(into);
    while (bytes > 0) {
      const la_ssize_t got = archive_read_data(reader_, to, bytes);
      check(got >= 0, "{}: {}", where_, reason(reader_));
      check(got > 0, "{} is cut short", where_);
      to += got;
      bytes -= static_cast<size_t>(got);
    }
  }

  Header header() {
    unsigned char start[8];
    read(start, sizeof start);
    check(std::memcmp(start, "\x93NUMPY", 6) == 0, "{} is no NumPy array", where_);
    check(start[6] >= 1 && start[6] <= 3, "{}: version {} of NumPy's format is unknown", where_, start[6]);
    unsigned char length[4] = {};
    read(length, start[6] == 1 ? 2 : 4);
    const size_t size =
        length[0] + (size_t{length[1]} << 8) + (size_t{length[2]} << 16) + (size_t{length[3]} << 24);
    check(size <= most_header, "{}: a header of {} bytes is too long", where_, size);
    std::string text(size, '\0');
    read(text.data(), size);
    return {text, where_};
  }

 private:
  archive* reader_;
  std::string where_;
};

std::string npy_header(int64_t count, int64_t height, int64_t width) {
  std::string text = fmt::format("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, {}, {}, 3), }}",
                                 count, height, width);
  text.append(63 - (10 + text.size()) % 64, ' ');  // values begin at a multiple of 64
  text += '\n';
  std::string result("\x93NUMPY\x01\x00", 8);
  result += static_cast<char>(text.size() & 0xff);
  result += static_cast<char>(text.size() >> 8);
  return result + text;
}

}  // namespace

void read_npz(const std::filesystem::path& path, const std::function<bool(std::string_view name)>& wants,
              const std::function<void(const NpyArray& array, const ReadValues& read)>& on_array) {
  const std::string file = printable(path.string(), 4096);
  const Reader reader(archive_read_new(), &archive_read_free);
  if (!reader) throw OutOfMemory("out of memory");
  archive_read_support_format_zip(reader.get());
  const int opened = archive_read_open_filename(reader.get(), path.c_str(), read_at_once);
  check(opened == ARCHIVE_OK, "{} cannot be read as .npz: {}", file, reason(reader.get()));
  archive_entry* entry = nullptr;
  for (;;) {
    const int state = archive_read_next_header(reader.get(), &entry);
    if (state == ARCHIVE_EOF) return;
    check(state == ARCHIVE_OK || state == ARCHIVE_WARN, "{} cannot be read as .npz: {}", file,
          reason(reader.get()));
    const char* member = archive_entry_pathname(entry);
    std::string name = member ? member : "";
    if (name.ends_with(".npy")) name.resize(name.size() - 4);
    if (!wants(name)) continue;
    const std::string where = fmt::format("{}: array {}", file, printable(name));
    Stream stream(reader.get(), where);
    const Header header = stream.header();
    const NpyArray array{name, header.descr(), dtype_of(header.descr()), header.shape(),
                         header.fortran_order()};
    on_array(array, [&](void* into, size_t bytes) { stream.read(into, bytes); });
  }
}

void write_npz_pictures(const std::filesystem::path& path, int64_t count, int64_t height, int64_t width,
                        const std::function<void(int64_t i, uint8_t* into)>& picture) {
  write_file_atomically(path, [&](std::FILE* file) {
    const Writer writer(archive_write_new(), &archive_write_free);
    const std::unique_ptr<archive_entry, decltype(&archive_entry_free)> entry(archive_entry_new(),
                                                                              &archive_entry_free);
    if (!writer || !entry) throw OutOfMemory("out of memory");
    const auto good = [&](la_ssize_t state) {
      check(state >= ARCHIVE_WARN, "cannot write {}: {}", printable(path.string()), reason(writer.get()));
    };
    good(archive_write_set_format_zip(writer.get()));
    good(archive_write_zip_set_compression_store(writer.get()));
    good(archive_write_set_bytes_in_last_block(writer.get(), 1));  // nothing behind the end
    good(archive_write_open_FILE(writer.get(), file));
    const std::string header = npy_header(count, height, width);
    std::vector<uint8_t> bytes(static_cast<size_t>(height * width * 3));
    archive_entry_set_pathname(entry.get(), "arr_0.npy");
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0644);
    archive_entry_set_mtime(entry.get(), 0, 0);
    archive_entry_set_size(entry.get(),
                           static_cast<int64_t>(header.size() + static_cast<size_t>(count) * bytes.size()));
    good(archive_write_header(writer.get(), entry.get()));
    good(archive_write_data(writer.get(), header.data(), header.size()));
    for (int64_t i = 0; i < count; ++i) {
      picture(i, bytes.data());
      good(archive_write_data(writer.get(), bytes.data(), bytes.size()));
    }
    good(archive_write_close(writer.get()));
  });
}

}  // namespace linnet
