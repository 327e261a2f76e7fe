// JPEG in, by libjpeg. It reports errors by a callback that must not return: that callback jumps back to the
// setjmp below, over C frames only; nothing with a destructor lives in between.
#include <csetjmp>
#include <cstdio>

#include <jpeglib.h>
// jerror.h needs jpeglib.h before it.
#include <jerror.h>

#include "io/image_codecs.h"

namespace linnet {
namespace {

struct Decoder {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf back{};
  char message[JMSG_LENGTH_MAX] = {};
  std::vector<uint8_t> cmyk_row;

  ~Decoder() { jpeg_destroy_decompress(&info); }
};

[[noreturn]] void jump_back(j_common_ptr info) {
  auto* decoder = static_cast<Decoder*>(info->client_data);
  info->err->format_message(info, decoder->message);
  std::longjmp(decoder->back, 1);
}

// libjpeg fills a picture cut short with grey and only warns. For us that is an error; other warnings (stray
// bytes before a marker) leave the picture whole.
void on_message(j_common_ptr info, int level) {
  if (level != -1) return;
  const int code = info->err->msg_code;
  if (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE) jump_back(info);
}

// A progressive file of a few kilobytes may hold thousands of scans, each of which decodes the whole picture.
void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > 500)
    ERREXIT(reinterpret_cast<j_decompress_ptr>(info), JERR_BAD_PROGRESSION);
}

// Returns false when libjpeg failed; the message is in the decoder.
template <class Step>
bool guarded(Decoder& decoder, Step step) {
  if (setjmp(decoder.back) != 0) return false;
  step();
  return true;
}

void begin(Decoder& decoder, std::FILE* file) {
  jpeg_create_decompress(&decoder.info);
  decoder.info.progress = &decoder.progress;
  jpeg_stdio_src(&decoder.info, file);
  jpeg_read_header(&decoder.info, TRUE);
  const bool four = decoder.info.num_components == 4;
  decoder.info.out_color_space = four ? JCS_CMYK : JCS_RGB;
  decoder.info.dct_method = JDCT_ISLOW;
}

// Adobe writes CMYK inverted; files without its marker are rare enough to be taken for the same.
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

}  // namespace

Image read_jpeg(std::FILE* file, const std::string& name) {
  Decoder decoder;
  decoder.info.err = jpeg_std_error(&decoder.errors);
  decoder.info.client_data = &decoder;
  decoder.errors.error_exit = &jump_back;
  decoder.errors.emit_message = &on_message;
  decoder.progress.progress_monitor = &on_progress;
  check(guarded(decoder, [&] { begin(decoder, file); }), "{}: damaged JPEG: {}", name, decoder.message);
  // A block of 8 x 8 takes at least one bit.
  Image image = sized_image(decoder.info.image_width, decoder.info.image_height, file, 64 * 8 * 4, name);
  if (decoder.info.num_components == 4) decoder.cmyk_row.resize(static_cast<size_t>(image.width) * 4);
  check(guarded(decoder, [&] { read_rows(decoder, image); }), "{}: damaged JPEG: {}", name, decoder.message);
  return image;
}

}  // namespace linnet
