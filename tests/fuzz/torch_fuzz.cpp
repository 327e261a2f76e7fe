// Any bytes as a PyTorch file: refused with one printable sentence, or every byte of every tensor can be read.
#include <cstdlib>

#include "io/torch_file.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = linnet::TorchFile::from_memory(std::as_bytes(std::span(data, size)), nullptr, "input");
    volatile unsigned sink = 0;
    for (const std::string& name : file.names()) {
      if (!file.entry(name).dtype) continue;
      const linnet::Tensor tensor = file.tensor(name);
      for (size_t i = 0; i < tensor.bytes(); ++i)
        sink = sink + static_cast<const unsigned char*>(tensor.raw())[i];
    }
  } catch (const linnet::Error& error) {
    const std::string text = error.what();
    require(!text.empty() && text.size() < 2000);
    for (const char c : text) require(static_cast<uint8_t>(c) >= 0x20 && c != 0x7f);
  }
  return 0;
}
