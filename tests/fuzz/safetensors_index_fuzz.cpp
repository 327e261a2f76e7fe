// Any text as an index of safetensors files: refused with a sentence, or a map to names that stay in the
// folder.
#include <cstdlib>

#include "core/error.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (const auto& [name, shard] : linnet::parse_safetensors_index(text, "input")) {
      if (shard.empty() || shard == ".." || shard.find('/') != shard.npos || shard.find('\0') != shard.npos)
        std::abort();
    }
  } catch (const linnet::Error& error) {
    for (const char c : std::string_view(error.what()))
      if (static_cast<uint8_t>(c) < 0x20) std::abort();
  }
  return 0;
}
