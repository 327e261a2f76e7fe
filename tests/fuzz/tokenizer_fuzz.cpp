// SentencePiece models from anywhere, and a text in what is read of one.
#include <cstdint>

#include "core/error.h"
#include "io/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto tokenizer = linnet::Tokenizer::from_bytes({reinterpret_cast<const char*>(data), size}, "fuzz");
    (void)tokenizer.ids("Two red stars, ﷺ and ½ a blue ring", 300);
  } catch (const linnet::Error&) {
  }
  return 0;
}
