// What image.cpp and the codecs of the formats share. Not for use elsewhere.
#pragma once

#include <cstdio>
#include <map>
#include <span>
#include <string>

#include "core/error.h"
#include "io/image.h"

namespace linnet {

/// A picture as it is stored, and which way up it goes (Exif).
struct DecodedImage {
  Image image;
  int orientation = 1;
};

/// name is for error sentences.
DecodedImage read_png(std::span<const std::byte> bytes, const std::string& name);
DecodedImage read_jpeg(std::span<const std::byte> bytes, const std::string& name);
DecodedImage read_webp(std::span<const std::byte> bytes, const std::string& name);

ImageText read_png_text(std::span<const std::byte> bytes, const std::string& name);
ImageText read_jpeg_text(std::span<const std::byte> bytes, const std::string& name);
ImageText read_webp_text(std::span<const std::byte> bytes, const std::string& name);

/// As ImageNotes::whole has it.
bool is_whole_png(std::span<const std::byte> bytes);
bool is_whole_jpeg(std::span<const std::byte> bytes);
bool is_whole_webp(std::span<const std::byte> bytes);

/// A picture that is to be written, and with what.
struct ImageToWrite {
  const Image& image;
  const ImageText& text;
  std::optional<int> quality;
  const std::string& name;
};
/// Throws Error when a JPEG cannot hold it.
void check_jpeg_text(const ImageText& text, const std::string& name);
/// Throws Error when a WebP cannot be that large.
void check_webp_size(int64_t width, int64_t height, const std::string& name);
void write_png(std::FILE* file, const ImageToWrite& what);
void write_jpeg(std::FILE* file, const ImageToWrite& what);
void write_webp(std::FILE* file, const ImageToWrite& what);

/// An empty picture of that size with its memory; throws Error when it is beyond the limits, or when the file
/// is too small to hold that many pixels even at the format's best compression (so that a header of a few bytes
/// cannot ask for gigabytes).
Image sized_image(int64_t width, int64_t height, size_t file_bytes, int64_t most_pixels_a_byte,
                  const std::string& name);

/// Lays transparent pixels over white.
void over_white(const uint8_t* rgba, uint8_t* rgb, int64_t pixels);

}  // namespace linnet
