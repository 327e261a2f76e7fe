// Pictures from anywhere: PNG, JPEG, WebP and their Exif data.
#include <cstdint>

#include "core/error.h"
#include "io/image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    (void)linnet::read_image_notes(bytes, "fuzz");
    (void)linnet::read_image(bytes, "fuzz");
  } catch (const linnet::Error&) {
  }
  return 0;
}
