// Any bytes as a safetensors file: refused with one printable sentence, or every byte of every tensor can be
// read and the header, written again, reads the same.
#include <cstdlib>
#include <cstring>

#include "io/safetensors.h"

namespace {

using namespace linnet;

void require(bool condition) {
  if (!condition) std::abort();
}

void require_one_sentence(const std::string& text) {
  require(!text.empty() && text.size() < 2000);
  for (const char c : text) require(static_cast<uint8_t>(c) >= 0x20 && c != 0x7f);
}

// Touches all of a tensor, so that the address sanitizer sees a byte that is not there.
unsigned sum_of(const Tensor& tensor) {
  unsigned sum = 0;
  for (size_t i = 0; i < tensor.bytes(); ++i) sum += static_cast<const unsigned char*>(tensor.raw())[i];
  return sum;
}

void require_round_trip(const SafetensorsFile& file, std::vector<TensorToWrite> tensors) {
  sort_for_safetensors(tensors);
  std::string again = make_safetensors_header(tensors, file.metadata());
  for (const TensorToWrite& tensor : tensors)
    again.append(static_cast<const char*>(tensor.read().raw()), tensor.bytes());
  const SafetensorsHeader header = parse_safetensors_header(std::as_bytes(std::span(again)), "again");
  require(header.metadata == file.metadata() && header.entries.size() == tensors.size());
  for (const TensorToWrite& tensor : tensors) {
    const SafetensorsEntry& entry = header.entries.at(tensor.name);
    require(entry.dtype == tensor.dtype && entry.shape == tensor.shape);
    require(std::memcmp(again.data() + header.data_begin + entry.begin, tensor.read().raw(), tensor.bytes()) ==
            0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = SafetensorsFile::from_memory(std::as_bytes(std::span(data, size)), nullptr, "input");
    std::vector<TensorToWrite> tensors;
    volatile unsigned sink = 0;
    for (const std::string& name : file.names()) {
      if (!file.entry(name).dtype) continue;
      const Tensor tensor = file.tensor(name);
      tensors.push_back({name, tensor.dtype(), tensor.shape(), [tensor] { return tensor; }});
      sink = sink + sum_of(tensor);
    }
    require_round_trip(file, tensors);
    for (const std::string& name : file.names())
      if (!file.entry(name).dtype) (void)file.tensor(name);
  } catch (const linnet::Error& error) {
    require_one_sentence(error.what());
  }
  return 0;
}
