#include "io/safetensors.h"

#include <cstring>

#include "io/other_kinds.h"
#include "io/text.h"

namespace linnet {

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  return from_memory(file->bytes(), file, printable(path.string()));
}

SafetensorsFile SafetensorsFile::from_memory(std::span<const std::byte> bytes,
                                             std::shared_ptr<const void> owner, const std::string& source) {
  check_no_other_kind({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, source, "weights");
  SafetensorsFile result;
  result.source_ = source;
  result.bytes_ = bytes;
  result.owner_ = std::move(owner);
  result.header_ = parse_safetensors_header(bytes, source);
  return result;
}

const SafetensorsEntry& SafetensorsFile::entry(std::string_view name) const {
  const auto found = header_.entries.find(name);
  check(found != header_.entries.end(), "{}: there is no tensor '{}'", source_, printable(name));
  return found->second;
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const Entry& e = entry(name);
  check(e.dtype.has_value(), "{}: tensor '{}' has the element type {}, which Linnet does not read", source_,
        printable(name), printable(e.dtype_name));
  const std::byte* const data = bytes_.data() + header_.data_begin + e.begin;
  if (reinterpret_cast<uintptr_t>(data) % size_of(*e.dtype) == 0)
    return Tensor::borrow(data, e.shape, *e.dtype, owner_);
  Tensor copy = Tensor::empty(e.shape, *e.dtype);
  std::memcpy(copy.mutable_raw(), data, copy.bytes());
  return copy;
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  sort_for_safetensors(tensors);
  const std::string header = make_safetensors_header(tensors, metadata);
  write_file_atomically(path, [&](std::FILE* file) {
    write_bytes(file, header.data(), header.size());
    for (const TensorToWrite& tensor : tensors) {
      const Tensor values = tensor.read();
      check(values.defined() && values.shape() == tensor.shape && values.dtype() == tensor.dtype,
            "cannot write {}: tensor '{}' is not the {} of shape {} that it was to be",
            printable(path.string()), printable(tensor.name), name_of(tensor.dtype), to_string(tensor.shape));
      write_bytes(file, values.host().raw(), values.bytes());
    }
  });
}

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorToWrite> items;
  for (const auto& [name, tensor] : tensors) {
    check(tensor.defined(), "{}: tensor '{}' has no contents to write", printable(path.string()),
          printable(name));
    items.push_back({name, tensor.dtype(), tensor.shape(), [value = tensor] { return value; }});
  }
  write_safetensors(path, std::move(items), metadata);
}

}  // namespace linnet
