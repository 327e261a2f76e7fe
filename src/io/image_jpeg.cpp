// JPEG in and out, by libjpeg. It reports errors by a callback that must not return: that callback jumps back
// to the setjmp in guarded(), over C frames only; nothing with a destructor lives in between.
#include <cerrno>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>
// jerror.h needs jpeglib.h before it.
#include <jerror.h>

#include "io/exif.h"
#include "io/image_codecs.h"

namespace linnet {
namespace {

constexpr int exif_marker = JPEG_APP0 + 1;
constexpr std::string_view exif_start("Exif\0\0", 6);
constexpr size_t most_marker_bytes = 65533;

// Where libjpeg's errors go; client_data of its structures points here.
struct Failure {
  jpeg_error_mgr errors{};
  std::jmp_buf back{};
  char message[JMSG_LENGTH_MAX] = {};
};

[[noreturn]] void jump_back(j_common_ptr info) {
  auto* failure = static_cast<Failure*>(info->client_data);
  info->err->format_message(info, failure->message);
  std::longjmp(failure->back, 1);
}

// libjpeg fills a picture cut short with grey and only warns. For us that is an error; other warnings (stray
// bytes before a marker) leave the picture whole.
void on_message(j_common_ptr info, int level) {
  if (level != -1) return;
  const int code = info->err->msg_code;
  if (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE) jump_back(info);
}

// Returns false when libjpeg failed; the message is in the failure.
template <class Step>
bool guarded(Failure& failure, Step step) {
  if (setjmp(failure.back) != 0) return false;
  step();
  return true;
}

// A progressive file of a few kilobytes may hold thousands of scans, each of which decodes the whole picture.
void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > 500)
    ERREXIT(reinterpret_cast<j_decompress_ptr>(info), JERR_BAD_PROGRESSION);
}

struct Decoder {
  jpeg_decompress_struct info{};
  jpeg_progress_mgr progress{};
  Failure failure;
  std::vector<uint8_t> cmyk_row;

  Decoder() {
    info.err = jpeg_std_error(&failure.errors);
    info.client_data = &failure;
    failure.errors.error_exit = &jump_back;
    failure.errors.emit_message = &on_message;
    progress.progress_monitor = &on_progress;
  }
  ~Decoder() { jpeg_destroy_decompress(&info); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
};

void read_header(Decoder& decoder, std::span<const std::byte> bytes, const std::string& name) {
  const bool read = guarded(decoder.failure, [&] {
    jpeg_create_decompress(&decoder.info);
    decoder.info.progress = &decoder.progress;
    jpeg_mem_src(&decoder.info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    jpeg_save_markers(&decoder.info, exif_marker, 0xffff);
    jpeg_read_header(&decoder.info, TRUE);
    decoder.info.out_color_space = decoder.info.num_components == 4 ? JCS_CMYK : JCS_RGB;
    decoder.info.dct_method = JDCT_ISLOW;
  });
  check(read, "{}: cannot read this JPEG: {}", name, decoder.failure.message);
}

Exif exif_of(const Decoder& decoder) {
  for (const jpeg_marker_struct* marker = decoder.info.marker_list; marker; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (marker->marker == exif_marker && data.starts_with(exif_start))
      return parse_exif(std::as_bytes(std::span(data)).subspan(exif_start.size()));
  }
  return {};
}

// Adobe writes CMYK inverted; files without its marker are rare enough to be taken for the same, as Pillow
// does.
void cmyk_to_rgb(const uint8_t* in, uint8_t* out, int64_t width) {
  for (int64_t x = 0; x < width; ++x)
    for (int64_t c = 0; c < 3; ++c)
      out[x * 3 + c] = static_cast<uint8_t>((in[x * 4 + c] * in[x * 4 + 3] + 127) / 255);
}

void read_rows(Decoder& decoder, Image& image) {
  jpeg_start_decompress(&decoder.info);
  while (decoder.info.output_scanline < decoder.info.output_height) {
    uint8_t* row = image.at(0, decoder.info.output_scanline);
    const bool four = !decoder.cmyk_row.empty();
    JSAMPROW target = four ? decoder.cmyk_row.data() : row;
    jpeg_read_scanlines(&decoder.info, &target, 1);
    if (four) cmyk_to_rgb(target, row, image.width);
  }
  jpeg_finish_decompress(&decoder.info);
}

struct Encoder {
  jpeg_compress_struct info{};
  Failure failure;

  Encoder() {
    info.err = jpeg_std_error(&failure.errors);
    info.client_data = &failure;
    failure.errors.error_exit = &jump_back;
  }
  ~Encoder() { jpeg_destroy_compress(&info); }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
};

void write_all(Encoder& encoder, std::FILE* file, const Image& image, int quality, const std::string& exif) {
  jpeg_create_compress(&encoder.info);
  jpeg_stdio_dest(&encoder.info, file);
  encoder.info.image_width = static_cast<JDIMENSION>(image.width);
  encoder.info.image_height = static_cast<JDIMENSION>(image.height);
  encoder.info.input_components = 3;
  encoder.info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&encoder.info);
  jpeg_set_quality(&encoder.info, quality, TRUE);
  encoder.info.optimize_coding = TRUE;
  // Colour at full resolution: painted pictures have sharp coloured edges.
  encoder.info.comp_info[0].h_samp_factor = encoder.info.comp_info[0].v_samp_factor = 1;
  jpeg_start_compress(&encoder.info, TRUE);
  if (!exif.empty())
    jpeg_write_marker(&encoder.info, exif_marker, reinterpret_cast<const JOCTET*>(exif.data()),
                      static_cast<unsigned>(exif.size()));
  while (encoder.info.next_scanline < encoder.info.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(image.at(0, encoder.info.next_scanline));
    jpeg_write_scanlines(&encoder.info, &row, 1);
  }
  jpeg_finish_compress(&encoder.info);
}

// The text as a marker holds it; empty for none.
std::string exif_for(const ImageText& text, const std::string& name) {
  if (text.empty()) return {};
  std::string exif = std::string(exif_start) + make_exif(comment_of(text));
  check(exif.size() <= most_marker_bytes, "cannot write {}: a JPEG cannot hold {} bytes of text", name,
        exif.size());
  return exif;
}

}  // namespace

DecodedImage read_jpeg(std::span<const std::byte> bytes, const std::string& name) {
  Decoder decoder;
  read_header(decoder, bytes, name);
  // A block of 8 x 8 takes at least one bit.
  Image image =
      sized_image(decoder.info.image_width, decoder.info.image_height, bytes.size(), 64 * 8 * 4, name);
  if (decoder.info.num_components == 4) decoder.cmyk_row.resize(static_cast<size_t>(image.width) * 4);
  const int orientation = exif_of(decoder).orientation;
  const bool whole = guarded(decoder.failure, [&] { read_rows(decoder, image); });
  check(whole, "{}: cannot read this JPEG: {}", name, decoder.failure.message);
  return {std::move(image), orientation};
}

ImageText read_jpeg_text(std::span<const std::byte> bytes, const std::string& name) {
  Decoder decoder;
  read_header(decoder, bytes, name);
  return text_of(exif_of(decoder).comment);
}

bool is_whole_jpeg(std::span<const std::byte> bytes) {
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()).ends_with("\xff\xd9");
}

void check_jpeg_text(const ImageText& text, const std::string& name) { (void)exif_for(text, name); }

void write_jpeg(std::FILE* file, const ImageToWrite& what) {
  const std::string exif = exif_for(what.text, what.name);
  Encoder encoder;
  const bool whole =
      guarded(encoder.failure, [&] { write_all(encoder, file, what.image, what.quality.value_or(95), exif); });
  check(whole, "cannot write {}: {}", what.name,
        std::ferror(file) ? std::strerror(errno) : encoder.failure.message);
}

}  // namespace linnet
