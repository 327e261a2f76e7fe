// PNG in and out, by libpng; the texts are read in image_png_text.cpp. It reports errors by a callback that
// must not return: that callback jumps back to the setjmp in guarded(), over C frames only; nothing with a
// destructor lives in between.
#include <png.h>

#include <algorithm>
#include <cerrno>
#include <csetjmp>
#include <cstring>

#include "io/exif.h"
#include "io/image_codecs.h"
#include "io/image_png_text.h"
#include "io/text.h"

namespace linnet {
namespace {

// libpng's state for one file, for reading or for writing.
struct Codec {
  png_structp png = nullptr;
  png_infop info = nullptr;
  const bool reads;
  std::jmp_buf back{};
  char message[128] = {};

  explicit Codec(bool reading);
  ~Codec() { reads ? png_destroy_read_struct(&png, &info, nullptr) : png_destroy_write_struct(&png, &info); }
  Codec(const Codec&) = delete;
  Codec& operator=(const Codec&) = delete;
};

[[noreturn]] void jump_back(png_structp png, png_const_charp message) {
  auto* codec = static_cast<Codec*>(png_get_error_ptr(png));
  std::snprintf(codec->message, sizeof codec->message, "%s", message);
  std::longjmp(codec->back, 1);
}

void ignore_warning(png_structp, png_const_charp) {}

Codec::Codec(bool reading) : reads(reading) {
  png = reads ? png_create_read_struct(PNG_LIBPNG_VER_STRING, this, &jump_back, &ignore_warning)
              : png_create_write_struct(PNG_LIBPNG_VER_STRING, this, &jump_back, &ignore_warning);
  check(png != nullptr, "libpng cannot start (out of memory, or of another version than {})",
        PNG_LIBPNG_VER_STRING);
  info = png_create_info_struct(png);
  if (info) return;
  reads ? png_destroy_read_struct(&png, nullptr, nullptr) : png_destroy_write_struct(&png, nullptr);
  fail("libpng is out of memory");
}

// Returns false when libpng failed; the message is in the codec.
template <class Step>
bool guarded(Codec& codec, Step step) {
  if (setjmp(codec.back) != 0) return false;
  step();
  return true;
}

void take_bytes(png_structp png, png_bytep into, size_t count) {
  auto& left = *static_cast<std::span<const std::byte>*>(png_get_io_ptr(png));
  if (left.size() < count) png_error(png, "it is cut short");
  std::memcpy(into, left.data(), count);
  left = left.subspan(count);
}

void read_header(Codec& codec, std::span<const std::byte>& left) {
  png_set_user_limits(codec.png, 0x7fffffff, 0x7fffffff);  // ours are checked, with a better sentence
  png_set_read_fn(codec.png, &left, &take_bytes);
  constexpr png_byte texts[] = "tEXt\0zTXt\0iTXt";  // of each, four letters and a zero byte
  png_set_keep_unknown_chunks(codec.png, PNG_HANDLE_CHUNK_NEVER, texts, 3);
  png_read_info(codec.png, codec.info);
}

// Whatever the file holds, rows arrive as 8-bit RGB or RGBA. Takes memory for two of them.
void begin_rows(Codec& codec) {
  png_set_expand(codec.png);
  png_set_scale_16(codec.png);
  png_set_gray_to_rgb(codec.png);
  png_set_interlace_handling(codec.png);
  png_read_update_info(codec.png, codec.info);
}

int orientation_of(const Codec& codec) {
  png_bytep exif = nullptr;
  png_uint_32 bytes = 0;
  if (!png_get_eXIf_1(codec.png, codec.info, &bytes, &exif)) return 1;
  return parse_exif({reinterpret_cast<const std::byte*>(exif), bytes}).orientation;
}

void check_keyword(const std::string& keyword) {
  const bool printable = std::ranges::all_of(keyword, [](char c) { return c >= ' ' && c <= '~'; });
  const bool spaced =
      keyword.starts_with(' ') || keyword.ends_with(' ') || keyword.find("  ") != std::string::npos;
  check(!keyword.empty() && keyword.size() <= 79 && printable && !spaced,
        "\"{}\" cannot name a PNG text entry (1 to 79 printable ASCII characters)", keyword);
}

// libpng wants pointers to mutable characters, which must outlive the call.
struct TextEntries {
  std::vector<std::pair<std::string, std::string>> entries;
  std::vector<png_text> chunks;

  TextEntries(const ImageText& text, const std::string& name) {
    PngTextLimit limit(name);
    for (const auto& [keyword, value] : text) {
      check_keyword(keyword);
      entries.emplace_back(keyword, valid_utf8(value));
      limit.count(keyword.size() + entries.back().second.size());
    }
    for (auto& [keyword, value] : entries) {
      const bool ascii = std::ranges::all_of(value, [](char c) { return static_cast<signed char>(c) >= 0; });
      png_text chunk{};
      chunk.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
      chunk.key = keyword.data();
      chunk.text = value.data();
      (ascii ? chunk.text_length : chunk.itxt_length) = value.size();
      chunks.push_back(chunk);
    }
  }
};

void write_all(Codec& codec, std::FILE* file, const Image& image, const TextEntries& text,
               const std::vector<png_const_bytep>& rows) {
  png_init_io(codec.png, file);
  png_set_user_limits(codec.png, 0x7fffffff, 0x7fffffff);
  png_set_IHDR(codec.png, codec.info, static_cast<png_uint_32>(image.width),
               static_cast<png_uint_32>(image.height), 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!text.chunks.empty())
    png_set_text(codec.png, codec.info, text.chunks.data(), static_cast<int>(text.chunks.size()));
  png_write_info(codec.png, codec.info);
  png_write_image(codec.png, const_cast<png_bytepp>(rows.data()));
  png_write_end(codec.png, nullptr);
}

}  // namespace

DecodedImage read_png(std::span<const std::byte> bytes, const std::string& name) {
  Codec codec(true);
  std::span<const std::byte> left = bytes;
  check(guarded(codec, [&] { read_header(codec, left); }), "{}: damaged PNG: {}", name, codec.message);
  const int64_t width = png_get_image_width(codec.png, codec.info);
  const int64_t height = png_get_image_height(codec.png, codec.info);
  // Deflate makes at most 1032 bytes of one, each of at most 8 pixels.
  Image image = sized_image(width, height, bytes.size(), 8 * 1032, name);
  check(guarded(codec, [&] { begin_rows(codec); }), "{}: damaged PNG: {}", name, codec.message);
  const int64_t channels = png_get_channels(codec.png, codec.info);
  std::vector<uint8_t> rgba(channels == 4 ? static_cast<size_t>(width * height * 4) : 0);
  std::vector<png_bytep> rows(static_cast<size_t>(height));
  for (size_t y = 0; y < rows.size(); ++y)
    rows[y] = (channels == 4 ? rgba : image.rgb).data() + y * static_cast<size_t>(width * channels);
  const bool whole = guarded(codec, [&] {
    png_read_image(codec.png, rows.data());
    png_read_end(codec.png, codec.info);
  });
  check(whole, "{}: damaged PNG: {}", name, codec.message);
  if (channels == 4) over_white(rgba.data(), image.rgb.data(), width * height);
  return {std::move(image), orientation_of(codec)};
}

void write_png(std::FILE* file, const ImageToWrite& what) {
  const Image& image = what.image;
  const TextEntries entries(what.text, what.name);
  std::vector<png_const_bytep> rows;
  for (int64_t y = 0; y < image.height; ++y) rows.push_back(image.at(0, y));
  Codec codec(false);
  const bool whole = guarded(codec, [&] { write_all(codec, file, image, entries, rows); });
  check(whole, "cannot write {}: {}", what.name, std::ferror(file) ? std::strerror(errno) : codec.message);
}

}  // namespace linnet
