// Pictures: PNG, JPEG and WebP in and out, and to and from tensors. Always 8-bit RGB, upright: grey and palette
// pictures are expanded, CMYK is converted, transparency is laid over white, 16-bit samples are scaled, the
// Exif orientation is applied: what a person sees, where the field's Python takes a turned photo as it is
// stored, drops transparency and cuts 16 bits off. Colour profiles are not applied, there as here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "io/file.h"

namespace linnet {

struct Image {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;  ///< (height, width, 3), interleaved

  const uint8_t* at(int64_t x, int64_t y) const { return rgb.data() + (y * width + x) * 3; }
  uint8_t* at(int64_t x, int64_t y) { return rgb.data() + (y * width + x) * 3; }
  bool operator==(const Image&) const = default;
};

/// The most that is read: pictures beyond it are refused, whatever their header promises.
constexpr int64_t max_image_side = 32768, max_image_pixels = int64_t{128} << 20;

/// A picture of one colour.
Image blank_image(int64_t width, int64_t height, uint8_t red, uint8_t green, uint8_t blue);

enum class ImageFormat { png, jpeg, webp };

/// What a file's name says that it is: .png, .jpg, .jpeg or .webp in any case.
std::optional<ImageFormat> image_format(const std::filesystem::path& path);
/// For messages: "PNG".
std::string to_string(ImageFormat format);

/// Reads a picture, whose format its content tells. Throws Error naming the file when it is of another format,
/// which it names if it is a common one, an animation, damaged, cut short or too large.
Image read_image(const std::filesystem::path& path);

/// The same of a picture in memory; name is for messages.
Image read_image(std::span<const std::byte> bytes, const std::string& name);

/// Text entries of a picture: keyword (1 to 79 printable ASCII characters) to UTF-8 value; bytes that are not
/// UTF-8 become U+FFFD. PNG holds them as such, at most 100,000 of 16 MiB in all, JPEG and WebP as one JSON
/// object in Exif's UserComment.
using ImageText = std::map<std::string, std::string>;

/// Writes a picture atomically in the format that its name says, which must say one; the same picture and text
/// give the same bytes. quality, 1 to 100, is that of JPEG (default 95) or of a lossy WebP (default: lossless);
/// a PNG has none.
void write_image(const std::filesystem::path& path, const Image& image, const ImageText& text = {},
                 std::optional<int> quality = {}, Durability durability = Durability::durable);

/// Says before long work what would stop write_image() after it: throws Error when the format that the name
/// says cannot hold the text, as JPEG, which holds less than 64 kB.
void check_text_fits(const std::filesystem::path& path, const ImageText& text);
/// The same when the format cannot be that large, as WebP, which has at most 16383 pixels a side.
void check_size_fits(const std::filesystem::path& path, int64_t width, int64_t height);

/// A PNG as bytes, for who does not want a file.
std::string png_bytes(const Image& image);

/// What a picture is beside its pixels. Throws Error when it is no picture.
struct ImageNotes {
  ImageFormat format;
  ImageText text;
  /// Whether all of it is there, as far as can be told at little cost, without decoding: of a PNG each chunk's
  /// sum is right, a JPEG ends as one, and a WebP is as long as it says.
  bool whole;
};
ImageNotes read_image_notes(const std::filesystem::path& path);
ImageNotes read_image_notes(std::span<const std::byte> bytes, const std::string& name);

/// Whether a file begins as a picture does that read_image() reads.
bool is_image_file(const std::filesystem::path& path);

/// The picture after Exif's orientation (1 to 8) is applied.
Image upright(Image image, int orientation);

/// Pictures of one size as (n, 3, height, width) f32 in [-1, 1].
Tensor to_tensor(std::span<const Image> images);
/// A (3, height, width) tensor as a picture: (x + 1) * 127.5, clamped and rounded to nearest; NaN is black.
Image to_image(const Tensor& chw);

}  // namespace linnet
