// Pictures: PNG and JPEG in, PNG out, and to and from tensors. Always 8-bit RGB: grey and palette pictures are
// expanded, transparency is laid over white, 16-bit samples are scaled. Colour profiles and the Exif
// orientation are not applied, as the field's data loaders do not apply them either.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace linnet {

struct Image {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;  ///< (height, width, 3), interleaved

  const uint8_t* at(int64_t x, int64_t y) const { return rgb.data() + (y * width + x) * 3; }
  uint8_t* at(int64_t x, int64_t y) { return rgb.data() + (y * width + x) * 3; }
  bool operator==(const Image&) const = default;
};

/// The most that is read: pictures beyond it are refused, whatever their header promises.
constexpr int64_t max_image_side = 32768, max_image_pixels = int64_t{256} << 20;

/// A picture of one colour.
Image blank_image(int64_t width, int64_t height, uint8_t red, uint8_t green, uint8_t blue);

/// True if a file's name is one that data sets give to what read_image() reads: .png, .jpg or .jpeg in any
/// case.
bool has_picture_name(const std::filesystem::path& path);

/// Reads a PNG or a JPEG, told apart by content. Throws Error naming the file when it is neither, damaged, cut
/// short or too large.
Image read_image(const std::filesystem::path& path);

/// The same of a picture in memory; name is for messages.
Image read_image(std::span<const std::byte> bytes, const std::string& name);

/// Writes a PNG atomically; the same picture and text give the same bytes. text holds PNG text entries: keyword
/// (1 to 79 printable ASCII characters) to UTF-8 value; bytes that are not UTF-8 become U+FFFD.
void write_png(const std::filesystem::path& path, const Image& image,
               const std::map<std::string, std::string>& text = {});

/// The text entries that stand before the image data, values in UTF-8. Throws Error when it is no PNG.
std::map<std::string, std::string> read_png_text(const std::filesystem::path& path);

/// Pictures of one size as (n, 3, height, width) f32 in [-1, 1].
Tensor to_tensor(std::span<const Image> images);
/// A (3, height, width) tensor as a picture: (x + 1) * 127.5, clamped and rounded to nearest; NaN is black.
Image to_image(const Tensor& chw);

}  // namespace linnet
