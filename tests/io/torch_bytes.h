// PyTorch's files put together byte by byte, for tests of what PyTorch itself would never write, or not in a
// moment: pickles, and zip archives and legacy files with holes of gigabytes that take no disk.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace linnet::test {

template <class T>
std::string little_endian(T value) {
  std::string bytes(sizeof value, 0);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// Opcodes of a pickle of protocol 2.
namespace pickled {

inline std::string text(const std::string& value) {
  return std::string("X") + little_endian(static_cast<uint32_t>(value.size())) + value;
}
inline std::string number(int64_t value) { return std::string("\x8a\x08") + little_endian(value); }
inline std::string numbers(const std::vector<int64_t>& values) {
  std::string all = "(";
  for (const int64_t value : values) all += number(value);
  return all + "t";
}
/// A tensor of floats: a view of the storage with that key and so many elements.
inline std::string tensor(const std::string& key, int64_t count, int64_t offset,
                          const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" + text(key) +
         text("cpu") + number(count) + "tQ" + number(offset) + numbers(shape) + numbers(strides) + "\x89" +
         "ccollections\nOrderedDict\n)RtR";
}
inline std::string whole(const std::string& opcodes) { return "\x80\x02" + opcodes + "."; }

}  // namespace pickled

/// A file of which only what is put takes room on the disk.
class SparseFile {
 public:
  explicit SparseFile(const std::filesystem::path& path)
      : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600)) {
    if (descriptor_ < 0) throw std::runtime_error("no sparse file");
  }
  ~SparseFile() { ::close(descriptor_); }
  SparseFile(const SparseFile&) = delete;
  SparseFile& operator=(const SparseFile&) = delete;

  uint64_t size() const { return end_; }
  void append(const std::string& bytes) { put(end_, bytes); }
  void append_hole(uint64_t bytes) {
    end_ += bytes;
    if (::ftruncate(descriptor_, static_cast<off_t>(end_)) != 0) throw std::runtime_error("no hole");
  }
  void put(uint64_t at, const std::string& bytes) {
    if (::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(at)) !=
        static_cast<ssize_t>(bytes.size()))
      throw std::runtime_error("no room");
    end_ = std::max(end_, at + bytes.size());
  }

 private:
  int descriptor_;
  uint64_t end_ = 0;
};

/// A zip64 archive of stored files. Checksums are left out: no reader of weights computes them.
class ZipWriter {
 public:
  explicit ZipWriter(SparseFile& file) : file_(file) {}

  /// Appends a file's header, after which come so many bytes of it; contents begin at a multiple of 64, as
  /// PyTorch's.
  void begin(const std::string& name, uint64_t bytes) {
    entries_.push_back({name, file_.size(), bytes});
    const size_t unpadded = file_.size() + 30 + name.size() + 4;
    const std::string padding((64 - unpadded % 64) % 64, 'Z');
    file_.append("PK\x03\x04" + std::string(22, 0) + little_endian(static_cast<uint16_t>(name.size())) +
                 little_endian(static_cast<uint16_t>(padding.size() + 4)) + name + "FB" +
                 little_endian(static_cast<uint16_t>(padding.size())) + padding);
  }
  void add(const std::string& name, const std::string& contents) {
    begin(name, contents.size());
    file_.append(contents);
  }
  void finish() {
    const uint64_t directory = file_.size();
    for (const Entry& entry : entries_) file_.append(central(entry));
    const uint64_t end = file_.size();
    file_.append("PK\x06\x06" + little_endian(uint64_t{44}) + std::string(4 + 8, 0) +
                 little_endian(uint64_t{entries_.size()}) + little_endian(uint64_t{entries_.size()}) +
                 little_endian(end - directory) + little_endian(directory));
    file_.append("PK\x06\x07" + std::string(4, 0) + little_endian(end) + little_endian(uint32_t{1}));
    file_.append("PK\x05\x06" + std::string(4, 0) + std::string(12, '\xff') + std::string(2, 0));
  }

 private:
  struct Entry {
    std::string name;
    uint64_t offset, bytes;
  };

  static std::string central(const Entry& entry) {
    const std::string large = little_endian(uint16_t{1}) + little_endian(uint16_t{24}) +
                              little_endian(entry.bytes) + little_endian(entry.bytes) +
                              little_endian(entry.offset);
    return "PK\x01\x02" + std::string(16, 0) + std::string(8, '\xff') +
           little_endian(static_cast<uint16_t>(entry.name.size())) +
           little_endian(static_cast<uint16_t>(large.size())) + std::string(10, 0) + std::string(4, '\xff') +
           entry.name + large;
  }

  SparseFile& file_;
  std::vector<Entry> entries_;
};

}  // namespace linnet::test
